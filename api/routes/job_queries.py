"""The query of `GET /v1/jobs`: reads and checks its parameters."""

import math
from collections.abc import Mapping
from typing import Any

from shared.errors import InvalidRequest
from shared.ledger.job_record import JobFilter, JobStatus, Position

MAX_LIMIT = 100
DEFAULT_LIMIT = 20
_STATUSES = ", ".join(JobStatus)

INVALID_PARAMETER = {"description": "A parameter is invalid; the message names it."}
PARAMETERS: list[dict[str, Any]] = [
    {"name": name, "in": "query", "required": False, "description": description, "schema": schema}
    for name, description, schema in (
        ("status", f"Only jobs with one of these statuses, separated by commas: {_STATUSES}.", {"type": "string"}),
        ("model", "Only jobs of this model, by its name.", {"type": "string"}),
        ("created_after", "Only jobs accepted at this time or later, Unix seconds.", {"type": "number"}),
        ("created_before", "Only jobs accepted at this time or earlier, Unix seconds.", {"type": "number"}),
        (
            "limit",
            f"Jobs in a page, {DEFAULT_LIMIT} by default.",
            {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT},
        ),
        ("after", "The `next` of the page before.", {"type": "string"}),
    )
]
"""The parameters, for the OpenAPI document."""


def read_query(query: Mapping[str, str]) -> tuple[JobFilter, int, Position | None]:
    """The filter, the limit and the position of a page. Raises InvalidRequest, which names the parameter."""
    wanted = JobFilter(
        statuses=_statuses(query.get("status", "")),
        model=query.get("model"),
        created_from=_milliseconds(query, "created_after"),
        created_to=_milliseconds(query, "created_before"),
    )
    return wanted, read_limit(query.get("limit")), read_position(query.get("after"))


def _statuses(text: str) -> tuple[JobStatus, ...]:
    try:
        return tuple(JobStatus(name.strip()) for name in text.split(",") if name.strip())
    except ValueError:
        raise InvalidRequest(f"status must be one or more of {_STATUSES}", param="status") from None


def _milliseconds(query: Mapping[str, str], name: str) -> int | None:
    if (text := query.get(name)) is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < 1e12:
        raise InvalidRequest(f"{name} must be a time in Unix seconds", param=name)
    return int(seconds * 1000)


def read_limit(text: str | None) -> int:
    """The `limit` of a page. Raises InvalidRequest."""
    if text is None:
        return DEFAULT_LIMIT
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MAX_LIMIT):
        raise InvalidRequest(f"limit must be a number from 1 to {MAX_LIMIT}", param="limit")
    return int(text)


def read_position(text: str | None) -> Position | None:
    """The `after` of a page. Raises InvalidRequest."""
    if text is None:
        return None
    try:
        return Position.parse(text)
    except ValueError:
        raise InvalidRequest("after must be the `next` of another page", param="after") from None
