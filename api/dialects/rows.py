"""What nearly every answer is made of: a row for each document, with its place, its score and perhaps the document."""

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
    """The rows, best first. `document` says how a document comes back, None that it never does; `name` is its field."""
    rows: list[dict[str, Any]] = [{"index": row.index, score: row.score} for row in result.rows]
    if document is not None and result.return_documents:
        for rendered, row in zip(rows, result.rows, strict=True):
            rendered[name] = document(row)
    return rows


def text_of(row: RankedRow) -> str:
    """The text alone."""
    return row.document.text


def text_object(row: RankedRow) -> dict[str, Any]:
    """An object with the text, whatever was sent."""
    return {"text": row.document.text}


def echo(row: RankedRow) -> dict[str, Any]:
    """What the caller gave: an object as it came, otherwise never a null, which some clients reject."""
    return echo_parts(row) if row.document.fields is None else row.document.fields


def echo_parts(row: RankedRow) -> dict[str, Any]:
    """The text, and the caller's own `id` and `meta` where there are any."""
    document = row.document
    echoed: dict[str, Any] = {"text": document.text}
    if document.id is not None:
        echoed["id"] = document.id
    if document.meta is not None:
        echoed["meta"] = document.meta
    return echoed


def as_sent(row: RankedRow) -> Any:
    """An object as it came, and a string as a string."""
    return row.document.text if row.document.fields is None else row.document.fields
