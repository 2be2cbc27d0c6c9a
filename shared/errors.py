"""All errors that rerankq raises deliberately, as one tree.

    RerankqError
    ├── RequestError               the caller can correct it
    │   ├── InvalidRequest         a field is missing, malformed or out of range
    │   │   ├── TooManyDocuments   more documents than one request may have
    │   │   └── TextTooLong        a text is over a limit, and the request forbids truncation
    │   ├── PayloadTooLarge        the body is over the limit
    │   ├── RequestTimedOut        the request did not arrive completely in time
    │   ├── Unauthorized           the API key is missing or unknown
    │   ├── Forbidden              the API key lacks the scope of this route
    │   ├── RouteNotFound          the path does not exist
    │   ├── MethodNotAllowed       the path exists, but not with this method
    │   ├── ModelNotFound          no model with this name is served
    │   ├── JobNotFound            the job does not exist, or belongs to another key
    │   ├── JobNotFinished         the job has no result yet
    │   ├── BatchNotFound          the batch does not exist, or belongs to another key
    │   ├── WebhookNotFound        the webhook or delivery does not exist, or belongs to another key
    │   ├── StoredFileNotFound     the file does not exist, has expired, or belongs to another key
    │   ├── StoredFileInUse        an unfinished batch reads the file
    │   └── IdempotencyConflict    the Idempotency-Key was used for a different request
    ├── JobError                   the job ended without a result
    │   ├── JobCanceled
    │   ├── JobExpired             its deadline passed before it was scored
    │   └── ScoringFailed          the engine could not score it
    ├── ServiceError               the service cannot process the request now
    │   ├── RateLimited            the API key has exceeded one of its limits
    │   ├── Overloaded             too much work is pending
    │   ├── WaitTimedOut           the wait for the result timed out; the job continues
    │   ├── ModelUnavailable       the model failed to load
    │   ├── StoreUnavailable       Redis is unreachable or refuses writes
    │   │   └── StoreDamaged       data in Redis is missing or was changed by another program
    │   ├── PayloadsUnavailable    the payload store is unreachable or refuses access
    │   │   ├── PayloadsFull       it has no room for more
    │   │   └── PayloadMissing     an object does not exist in it
    │   └── InternalError          a bug in rerankq
    └── ConfigurationError         the operator can correct it (a file, a setting, a model that cannot score)

Errors carry a stable `code`, never an HTTP status: the API maps codes to statuses.
"""


class RerankqError(Exception):
    """Base class. `code` is stable and machine-readable, `message` is one sentence, `param` names the field."""

    code = "error"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class RequestError(RerankqError):
    """The caller can correct the request."""


class InvalidRequest(RequestError):
    """A field is missing, malformed or out of range; `param` names it."""

    code = "invalid_request"


class TooManyDocuments(InvalidRequest):
    """The request has more documents than one request may have."""

    code = "too_many_documents"


class TextTooLong(InvalidRequest):
    """A text is over a limit, and the request forbids truncation. `tokens` is its length, `limit` the most allowed."""

    code = "text_too_long"

    def __init__(self, message: str, *, param: str | None = None, tokens: int = 0, limit: int = 0) -> None:
        super().__init__(message, param=param)
        self.tokens = tokens
        self.limit = limit


class PayloadTooLarge(RequestError):
    """The body is over the limit."""

    code = "payload_too_large"


class RequestTimedOut(RequestError):
    """The request did not arrive completely in time."""

    code = "request_timed_out"


class Unauthorized(RequestError):
    """An API key is required, and the given one is missing or unknown."""

    code = "unauthorized"


class Forbidden(RequestError):
    """The API key lacks the scope that the route requires."""

    code = "forbidden"


class RouteNotFound(RequestError):
    """The path does not exist."""

    code = "not_found"


class MethodNotAllowed(RequestError):
    """The path exists, but not with this method."""

    code = "method_not_allowed"


class ModelNotFound(RequestError):
    """No model with this name is served."""

    code = "model_not_found"


class JobNotFound(RequestError):
    """The job does not exist, or belongs to another key."""

    code = "job_not_found"


class JobNotFinished(RequestError):
    """The job has no result yet."""

    code = "job_not_finished"


class BatchNotFound(RequestError):
    """The batch does not exist, or belongs to another key."""

    code = "batch_not_found"


class WebhookNotFound(RequestError):
    """The webhook or delivery does not exist, or belongs to another key."""

    code = "webhook_not_found"


class StoredFileNotFound(RequestError):
    """The file does not exist, has expired, or belongs to another key."""

    code = "file_not_found"


class StoredFileInUse(RequestError):
    """An unfinished batch reads the file."""

    code = "file_in_use"


class IdempotencyConflict(RequestError):
    """The Idempotency-Key was used for a different request."""

    code = "idempotency_conflict"


class JobError(RerankqError):
    """The job ended without a result."""


class JobCanceled(JobError):
    """The job was canceled."""

    code = "job_canceled"


class JobExpired(JobError):
    """The job's deadline passed before it was scored."""

    code = "job_expired"


class ScoringFailed(JobError):
    """The engine could not score the job."""

    code = "scoring_failed"


class ServiceError(RerankqError):
    """The service cannot process the request now. `retry_after` is in whole seconds, None if unknown."""

    def __init__(self, message: str, *, param: str | None = None, retry_after: int | None = None) -> None:
        super().__init__(message, param=param)
        self.retry_after = retry_after


class RateLimited(ServiceError):
    """The API key has exceeded one of its limits. `policy` describes it in the syntax of RateLimit-Policy.

    `reason` names the limit, for metrics.
    """

    code = "rate_limited"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        policy: str = "",
        retry_after: int | None = None,
        reason: str = "other",
    ) -> None:
        super().__init__(message, param=param, retry_after=retry_after)
        self.policy = policy
        self.reason = reason


class Overloaded(ServiceError):
    """Too much work is pending. `reason` names what there is too much of, for metrics."""

    code = "overloaded"

    def __init__(
        self, message: str, *, param: str | None = None, retry_after: int | None = None, reason: str = "other"
    ) -> None:
        super().__init__(message, param=param, retry_after=retry_after)
        self.reason = reason


class WaitTimedOut(ServiceError):
    """The wait for the result timed out; the job `job_id` continues."""

    code = "wait_timed_out"

    def __init__(self, message: str, *, job_id: str, retry_after: int) -> None:
        super().__init__(message, retry_after=retry_after)
        self.job_id = job_id


class ModelUnavailable(ServiceError):
    """No worker of the model is running, and the last one failed to start."""

    code = "model_unavailable"


class StoreUnavailable(ServiceError):
    """Redis is unreachable or refuses writes."""

    code = "store_unavailable"


class StoreDamaged(StoreUnavailable):
    """Data in Redis is missing or was changed by another program. Reading it again does not help."""

    code = "store_damaged"


class PayloadsUnavailable(ServiceError):
    """The payload store (a folder, an S3 bucket, or Redis) is unreachable or refuses access."""

    code = "payloads_unavailable"


class PayloadsFull(PayloadsUnavailable):
    """The payload store has no room for more."""

    code = "payloads_full"


class PayloadMissing(PayloadsUnavailable):
    """An object does not exist in the payload store: it was deleted, or its lifetime has passed."""

    code = "payload_missing"


class InternalError(ServiceError):
    """A bug in rerankq. The log has the details under the request id."""

    code = "internal_error"


class ConfigurationError(RerankqError):
    """The operator can correct it: a file, a setting, or a model that cannot score."""

    code = "configuration"
