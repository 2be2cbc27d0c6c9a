"""Every error that this client raises, as one tree.

    RerankError
    ├── RequestError             the caller can fix it
    │   ├── InvalidRequest       a field is missing, malformed or out of range; `param` names it
    │   │   └── TextTooLong      a text is over a limit, and the request forbids truncation; `param` names it
    │   ├── Unauthorized         no key, an unknown one, or one without the scope
    │   ├── NotFound             no such path
    │   │   ├── ModelNotFound    no model of that name is served
    │   │   ├── JobNotFound      no such job, or it belongs to another key
    │   │   ├── BatchNotFound    no such batch, or it belongs to another key
    │   │   └── StoredFileNotFound  no such file, it has expired, or it belongs to another key
    │   ├── PayloadTooLarge      the body is over the limit
    │   ├── JobNotFinished       the job or batch has no result yet
    │   ├── StoredFileInUse      an unfinished batch reads the file
    │   └── IdempotencyConflict  the idempotency key was used for another request
    ├── JobError                 the job ended without a result
    │   ├── JobCanceled
    │   ├── JobExpired           its deadline passed before it was scored
    │   ├── ScoringFailed        the engine could not score it
    │   └── BatchFailed          the batch could not be run; the message has the first error
    ├── ServiceError             the service cannot answer at the moment
    │   ├── Overloaded           it accepts no more requests at the moment
    │   │   └── RateLimited      the API key has exceeded one of its limits
    │   ├── Unavailable          a part of it is down: the model, the store, or the network
    │   └── InternalError        a fault of the service
    ├── WaitTimedOut             the caller's timeout passed; the job `job_id`, if any, continues
    ├── ConnectionFailed         the service is unreachable, or closed the connection
    └── UnexpectedAnswer         the answer does not come from rerankq

The classes follow the service's `error.type`, which is in `code`; `message` is one sentence.
"""

import json
from collections.abc import Mapping
from typing import Any

_EXCERPT = 200


class RerankError(Exception):
    """Base of the tree. `status` is the HTTP status, None without a response."""

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        status: int | None = None,
        param: str | None = None,
        retry_after: float | None = None,
        job_id: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.status = status
        self.param = param
        self.retry_after = retry_after
        self.job_id = job_id
        self.request_id = request_id


class RequestError(RerankError):
    """The caller can fix it."""


class InvalidRequest(RequestError):
    """A field is missing, malformed or out of range; `param` names it."""


class TextTooLong(InvalidRequest):
    """A text is over a limit, and the request forbids truncation; `param` names it."""


class Unauthorized(RequestError):
    """A key is required, and none or an unknown one was sent."""


class NotFound(RequestError):
    """No such path."""


class ModelNotFound(NotFound):
    """No model of that name is served."""


class JobNotFound(NotFound):
    """No such job, or it belongs to another key."""


class BatchNotFound(NotFound):
    """No such batch, or it belongs to another key."""


class StoredFileNotFound(NotFound):
    """No such file, it has expired, or it belongs to another key."""


class PayloadTooLarge(RequestError):
    """The body is over the limit."""


class JobNotFinished(RequestError):
    """The job or batch has no result yet."""


class StoredFileInUse(RequestError):
    """An unfinished batch reads the file."""


class IdempotencyConflict(RequestError):
    """The idempotency key was used for another request."""


class JobError(RerankError):
    """The job ended without a result."""


class JobCanceled(JobError):
    """The job was canceled."""


class JobExpired(JobError):
    """The job's deadline passed before it was scored."""


class ScoringFailed(JobError):
    """The engine could not score the job."""


class BatchFailed(JobError):
    """The batch could not be run; the message has the first error."""


class ServiceError(RerankError):
    """The service cannot answer at the moment."""


class Overloaded(ServiceError):
    """The service accepts no more requests at the moment."""


class RateLimited(Overloaded):
    """The API key has exceeded one of its limits; the message names it."""


class Unavailable(ServiceError):
    """A part of the service is down: the model, the store, or the network."""


class InternalError(ServiceError):
    """A fault of the service; its log has details under `request_id`."""


class WaitTimedOut(RerankError):
    """The caller's timeout passed; the job `job_id`, if any, continues."""


class ConnectionFailed(RerankError):
    """The service is unreachable, or closed the connection."""


class UnexpectedAnswer(RerankError):
    """The answer does not come from rerankq."""


_BY_CODE: dict[str, type[RerankError]] = {
    "invalid_request": InvalidRequest,
    "too_many_documents": InvalidRequest,
    "text_too_long": TextTooLong,
    "unauthorized": Unauthorized,
    "forbidden": Unauthorized,
    "not_found": NotFound,
    "model_not_found": ModelNotFound,
    "job_not_found": JobNotFound,
    "batch_not_found": BatchNotFound,
    "file_not_found": StoredFileNotFound,
    "webhook_not_found": NotFound,
    "file_in_use": StoredFileInUse,
    "payload_too_large": PayloadTooLarge,
    "request_timed_out": Unavailable,
    "job_not_finished": JobNotFinished,
    "idempotency_conflict": IdempotencyConflict,
    "job_canceled": JobCanceled,
    "job_expired": JobExpired,
    "scoring_failed": ScoringFailed,
    "overloaded": Overloaded,
    "rate_limited": RateLimited,
    "model_unavailable": Unavailable,
    "store_unavailable": Unavailable,
    "store_damaged": Unavailable,
    "payloads_unavailable": Unavailable,
    "payloads_full": ServiceError,
    "payload_missing": ServiceError,
    "internal_error": InternalError,
    "wait_timed_out": WaitTimedOut,
    "batch_cancelled": JobCanceled,
    "batch_expired": JobExpired,
}
# For responses of proxies.
_BY_STATUS: dict[int, type[RerankError]] = {
    401: Unauthorized,
    403: Unauthorized,
    404: NotFound,
    408: Unavailable,
    413: PayloadTooLarge,
    429: Overloaded,
    500: InternalError,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


def error_of(status: int, headers: Mapping[str, str], body: bytes) -> RerankError:
    """The error of a response with status 400 or more; header names are in lower case."""
    data = _error_object(body)
    data["message"] = data.get("message") or body[:_EXCERPT].decode(errors="replace").strip() or f"HTTP status {status}"
    error = error_of_object(data, status)
    error.retry_after = _seconds(headers.get("retry-after"))
    error.job_id = _job_id(headers.get("location", ""))
    error.request_id = headers.get("x-request-id")
    return error


def error_of_object(data: Mapping[str, Any], status: int | None) -> RerankError:
    """The error of a JSON object with `message`, `type` (or `code`) and `param`; `status` selects a class otherwise."""
    code = str(data.get("type") or data.get("code") or "")
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status or 0)
    if kind is None:
        kind = RerankError if status is None else RequestError if status < 500 else ServiceError
    return kind(str(data["message"]), code=code, status=status, param=data.get("param"))


def _error_object(body: bytes) -> dict[str, Any]:
    """The error object; for other JSON formats at least the message."""
    try:
        data = json.loads(body)
    except ValueError:
        return {}
    if not isinstance(data, dict):
        return {}
    if isinstance(data.get("error"), dict):
        return dict(data["error"])
    messages = (data.get(name) for name in ("message", "detail", "error"))
    return {"message": next((sentence for sentence in messages if isinstance(sentence, str)), None)}


def _seconds(header: str | None) -> float | None:
    """A Retry-After in seconds; None for a date."""
    return float(header) if header and header.strip().isdecimal() else None


def _job_id(location: str) -> str | None:
    return location.rpartition("/")[2] or None
