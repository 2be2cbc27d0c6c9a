"""What the OpenAPI document says of Bifrost's asynchronous door."""

from typing import Any, Literal

from api.dialects.bifrost import BifrostDialect
from api.dialects.schemas import Omitted, ResponseSchema
from api.openapi.examples import ERRORS, answer_to
from api.openapi.schemas import EXAMPLE_JOB_ID
from shared.errors import ScoringFailed

RESULT_TTL_PARAMETER: dict[str, Any] = {
    "name": "x-bf-async-job-result-ttl",
    "in": "header",
    "description": "How many seconds the result can be read; what is not a number above 0 is ignored.",
    "schema": {"type": "integer", "minimum": 1},
}


class AsyncJob(ResponseSchema):
    """A job as Bifrost describes it, with times as in RFC 3339.

    `result` is the answer, and `error` the error body, that a waiting call would have got; `status_code` is its status.
    """

    id: str
    status: Literal["pending", "processing", "completed", "failed"]
    created_at: str
    completed_at: str | Omitted = None
    expires_at: str | Omitted = None
    status_code: int | Omitted = None
    result: Any | Omitted = None
    error: Any | Omitted = None


_DIALECT = BifrostDialect()
_FAILURE = next(error for error in ERRORS if isinstance(error, ScoringFailed))
_PENDING = {"id": EXAMPLE_JOB_ID, "status": "pending", "created_at": "2026-11-21T00:49:56.000Z"}
_ENDED = {"completed_at": "2026-11-21T00:49:56.021Z", "expires_at": "2026-11-21T01:49:56.021Z"}
_COMPLETED = _PENDING | _ENDED | {"status": "completed", "status_code": 200}
_FAILED = _PENDING | _ENDED | {"status": "failed", "status_code": 500, "error": _DIALECT.render_error(_FAILURE)}


def _response(description: str, **examples: Any) -> dict[str, Any]:
    content = {"application/json": {"examples": {name: {"value": value} for name, value in examples.items()}}}
    return {"model": AsyncJob, "description": description, "content": content}


SUBMIT: dict[int | str, dict[str, Any]] = {202: _response("The job.", pending=_PENDING)}
POLL: dict[int | str, dict[str, Any]] = {
    200: _response(
        "The job has ended.",
        completed=_COMPLETED | {"result": answer_to(_DIALECT, _DIALECT.examples["documents"])[1]},
        failed=_FAILED,
    ),
    202: _response("The job has not ended.", pending=_PENDING, processing=_PENDING | {"status": "processing"}),
    404: {"description": "There is no such job, or it belongs to another key."},
}
