"""Maps rerankq's errors to HTTP: status, headers and the default body.

A dialect may change status and body; see api/dialects/base.py.
"""

import math
from typing import Any

from shared.errors import (
    BatchNotFound,
    Forbidden,
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
    PayloadMissing,
    PayloadsFull,
    PayloadsUnavailable,
    PayloadTooLarge,
    RateLimited,
    RequestTimedOut,
    RerankqError,
    RouteNotFound,
    ScoringFailed,
    ServiceError,
    StoreDamaged,
    StoredFileInUse,
    StoredFileNotFound,
    StoreUnavailable,
    TextTooLong,
    TooManyDocuments,
    Unauthorized,
    WaitTimedOut,
    WebhookNotFound,
)

_STATUS: dict[type[RerankqError], int] = {
    InvalidRequest: 400,
    TooManyDocuments: 400,
    TextTooLong: 400,
    Unauthorized: 401,
    Forbidden: 403,
    RouteNotFound: 404,
    ModelNotFound: 404,
    JobNotFound: 404,
    BatchNotFound: 404,
    StoredFileNotFound: 404,
    WebhookNotFound: 404,
    MethodNotAllowed: 405,
    JobNotFinished: 409,
    StoredFileInUse: 409,
    IdempotencyConflict: 422,
    JobCanceled: 409,
    PayloadTooLarge: 413,
    RequestTimedOut: 408,
    RateLimited: 429,
    Overloaded: 503,
    ScoringFailed: 500,
    InternalError: 500,
    StoreUnavailable: 503,
    StoreDamaged: 503,
    PayloadsUnavailable: 503,
    PayloadMissing: 500,
    PayloadsFull: 507,
    ModelUnavailable: 503,
    JobExpired: 504,
    WaitTimedOut: 504,
}


def status_of(error: RerankqError) -> int:
    """The HTTP status of an error; 500 for errors that only operators should see."""
    return _STATUS.get(type(error), 500)


def headers_of(error: RerankqError) -> dict[str, str]:
    """The error's response headers: Retry-After, RateLimit, Location, Connection, WWW-Authenticate."""
    headers: dict[str, str] = {}
    if isinstance(error, ServiceError) and error.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    if isinstance(error, RateLimited) and error.policy:
        # draft-ietf-httpapi-ratelimit-headers: nothing is left of this quota until then.
        name, _, _ = error.policy.partition(";")
        headers["RateLimit-Policy"] = error.policy
        headers["RateLimit"] = f"{name};r=0;t={error.retry_after}"
    if isinstance(error, WaitTimedOut):
        headers["Location"] = f"/v1/jobs/{error.job_id}"
    if isinstance(error, RequestTimedOut):
        # The server must not parse the rest of this body as the next request.
        headers["Connection"] = "close"
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    return headers


def superset_body(error: RerankqError) -> dict[str, Any]:
    """An error body that most clients can read: an `error` object, and `message` and `detail` as strings."""
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
