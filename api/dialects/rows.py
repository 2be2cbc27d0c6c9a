"""Renders the rows that most answers contain: position, score, and optionally the document."""

from collections.abc import Callable
from typing import Any

from shared.contracts import RankedRow, RerankResult


def rows_of(
    result: RerankResult,
    document: Callable[[RankedRow], Any] | None = None,
    *,
    score: str = "relevance_score",
    name: str = "document",
) -> list[dict[str, Any]]:
    """The rows, best first. `document` renders a document, None omits it; `name` is the field of the score."""
    rows: list[dict[str, Any]] = [{"index": row.index, score: row.score} for row in result.rows]
    if document is not None and result.return_documents:
        for rendered, row in zip(rows, result.rows, strict=True):
            rendered[name] = document(row)
    return rows


def text_of(row: RankedRow) -> str:
    """The text of the document."""
    return row.document.text


def text_object(row: RankedRow) -> dict[str, Any]:
    """An object with the text, for strings and objects."""
    return {"text": row.document.text}


def echo(row: RankedRow) -> dict[str, Any]:
    """The caller's object unchanged, otherwise an object without nulls, which some clients reject."""
    return echo_parts(row) if row.document.fields is None else row.document.fields


def echo_parts(row: RankedRow) -> dict[str, Any]:
    """The text, with the caller's `id` and `meta` if present."""
    document = row.document
    echoed: dict[str, Any] = {"text": document.text}
    if document.id is not None:
        echoed["id"] = document.id
    if document.meta is not None:
        echoed["meta"] = document.meta
    return echoed


def as_sent(row: RankedRow) -> Any:
    """The document as it was sent, an object or a string."""
    return row.document.text if row.document.fields is None else row.document.fields
