"""What an error's code means on the wire: its HTTP status, its headers, and the shape that a dialect gives its body."""

import math
from typing import Any

from shared.errors import (
    IdempotencyConflict,
    InternalError,
    InvalidRequest,
    JobCanceled,
    JobExpired,
    JobNotFinished,
    JobNotFound,
    MethodNotAllowed,
    ModelNotFound,
    ModelUnavailable,
    Overloaded,
    PayloadTooLarge,
    RequestTimedOut,
    RerankqError,
    RouteNotFound,
    ScoringFailed,
    ServiceError,
    StoreDamaged,
    StoreUnavailable,
    Unauthorized,
    WaitTimedOut,
)
from shared.ledger.job_record import JobFailure

_STATUS: dict[type[RerankqError], int] = {
    InvalidRequest: 400,
    Unauthorized: 401,
    RouteNotFound: 404,
    ModelNotFound: 404,
    JobNotFound: 404,
    MethodNotAllowed: 405,
    JobNotFinished: 409,
    IdempotencyConflict: 422,
    JobCanceled: 409,
    PayloadTooLarge: 413,
    RequestTimedOut: 408,
    Overloaded: 429,
    ScoringFailed: 500,
    InternalError: 500,
    StoreUnavailable: 503,
    StoreDamaged: 503,
    ModelUnavailable: 503,
    JobExpired: 504,
    WaitTimedOut: 504,
}


def status_of(error: RerankqError) -> int:
    """The HTTP status of an error; 500 for one that was never meant to reach a caller."""
    return _STATUS.get(type(error), 500)


def headers_of(error: RerankqError) -> dict[str, str]:
    """Retry-After in whole seconds where a time is known, Location where a job goes on, and what HTTP asks for."""
    headers: dict[str, str] = {}
    if isinstance(error, ServiceError) and error.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    if isinstance(error, WaitTimedOut):
        headers["Location"] = f"/v1/jobs/{error.job_id}"
    if isinstance(error, RequestTimedOut):
        # What comes of it later is not to be taken for another request.
        headers["Connection"] = "close"
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    return headers


def error_of(failure: JobFailure | None) -> RerankqError:
    """The error that a failed job's record stands for."""
    if failure is None:
        return InternalError("the job failed without a reason")
    return ScoringFailed(failure.message)


def superset_body(error: RerankqError) -> dict[str, Any]:
    """The body that nearly every client can read: an `error` object, and `message` and `detail` as strings."""
    return {
        "error": {
            "message": error.message,
            "type": error.code,
            "param": error.param,
            "code": status_of(error),
        },
        "message": error.message,
        "detail": error.message,
    }
