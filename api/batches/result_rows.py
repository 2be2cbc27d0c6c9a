"""Renders the result of a line as a row of the output or of the error file, as in OpenAI's Batch API.

A row has the line's number besides OpenAI's fields. An error row has `error`, and for requests that were rejected also
`response` with the status and the body that a call would have got.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import pydantic_core

from api.batches.line_requests import LineRequest
from api.dialects.base import Dialect
from shared.contracts import RerankResult
from shared.errors import RerankqError


class Unfinished(StrEnum):
    """Why a line was not run to its end: the codes of its error row."""

    CANCELLED = "batch_cancelled"
    EXPIRED = "batch_expired"


_REASONS = {
    Unfinished.CANCELLED: "the batch was cancelled before this request was completed",
    Unfinished.EXPIRED: "the batch expired before this request was completed",
}


@dataclass(frozen=True, slots=True)
class ResultRow:
    """One line's result, with its line break. `failed` rows go into the error file. `pairs` is the line's share.

    `unfinished`: why the line was not run to its end, None for other rows.
    """

    text: bytes
    failed: bool
    pairs: int
    unfinished: Unfinished | None = None


def succeeded(line: LineRequest, dialect: Dialect, result: RerankResult, batch_id: str) -> ResultRow:
    """The row of a ranked line."""
    response = {"status_code": 200, "request_id": result.id, "body": dialect.render(result)}
    return _row(line.number, line.summary.custom_id, line.summary.pairs, batch_id, response, None)


def failed(line: LineRequest, error: RerankqError, batch_id: str) -> ResultRow:
    """The row of a line that was rejected, or whose job failed."""
    response = {
        "status_code": line.dialect.status_of(error),
        "request_id": _request_id(batch_id, line.number),
        "body": line.dialect.render_error(error),
    }
    described = {"code": error.code, "message": error.message, "param": error.param}
    return _row(line.number, line.summary.custom_id, line.summary.pairs, batch_id, response, described)


def unfinished(number: int, custom_id: str | None, pairs: int, batch_id: str, reason: Unfinished) -> ResultRow:
    """The row of a line that was not run, or not to its end."""
    described = {"code": reason, "message": _REASONS[reason], "param": None}
    return replace(_row(number, custom_id, pairs, batch_id, None, described), unfinished=reason)


def _row(
    number: int,
    custom_id: str | None,
    pairs: int,
    batch_id: str,
    response: dict[str, Any] | None,
    error: dict[str, Any] | None,
) -> ResultRow:
    row = {
        "id": _request_id(batch_id, number),
        "custom_id": custom_id,
        "line": number,
        "response": response,
        "error": error,
    }
    return ResultRow(pydantic_core.to_json(row) + b"\n", error is not None, pairs)


def _request_id(batch_id: str, number: int) -> str:
    return f"batch_req_{batch_id.rpartition('_')[2]}_{number}"
