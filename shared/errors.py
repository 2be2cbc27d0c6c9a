"""Every error that rerankq raises on purpose, as one tree.

    RerankqError
    ├── RequestError               the caller can mend it
    │   ├── InvalidRequest         a field is missing, malformed or out of range
    │   ├── PayloadTooLarge        the body is over the limit
    │   ├── RequestTimedOut        the rest of the request did not come
    │   ├── Unauthorized           no key, or one that is not known
    │   ├── RouteNotFound          no such path
    │   ├── MethodNotAllowed       the path exists, the method does not
    │   ├── ModelNotFound          no model of that name is served
    │   ├── JobNotFound            no such job, or it belongs to another key
    │   ├── JobNotFinished         the job has no result yet
    │   └── IdempotencyConflict    the Idempotency-Key stands for another request
    ├── JobError                   the job ended without a result
    │   ├── JobCanceled
    │   ├── JobExpired             its deadline passed before it was scored
    │   └── ScoringFailed          the engine could not score it
    ├── ServiceError               the service cannot answer now
    │   ├── Overloaded             more is asked than it takes at once
    │   ├── WaitTimedOut           the caller's wait ended, the job goes on
    │   ├── ModelUnavailable       the model failed to load
    │   ├── StoreUnavailable       Redis cannot be reached, or refuses to write
    │   │   └── StoreDamaged       what Redis holds is not what was written, or not all of it
    │   └── InternalError          a fault of ours
    └── ConfigurationError         the operator can mend it (a file, a setting, a model that cannot score)

Errors carry a stable `code`, never an HTTP status: what a code means on the wire is the API's business.
"""


class RerankqError(Exception):
    """Base of the tree. `code` is stable and machine-readable; `message` is one sentence for a person."""

    code = "error"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class RequestError(RerankqError):
    """The caller can mend it."""


class InvalidRequest(RequestError):
    """A field is missing, malformed or out of range; `param` names it."""

    code = "invalid_request"


class PayloadTooLarge(RequestError):
    """The body is over the limit."""

    code = "payload_too_large"


class RequestTimedOut(RequestError):
    """The rest of the request did not come."""

    code = "request_timed_out"


class Unauthorized(RequestError):
    """A key is required, and none or an unknown one was given."""

    code = "unauthorized"


class RouteNotFound(RequestError):
    """No such path."""

    code = "not_found"


class MethodNotAllowed(RequestError):
    """The path exists, but not with this method."""

    code = "method_not_allowed"


class ModelNotFound(RequestError):
    """No model of that name is served."""

    code = "model_not_found"


class JobNotFound(RequestError):
    """No such job, or it belongs to another key."""

    code = "job_not_found"


class JobNotFinished(RequestError):
    """The job has no result yet."""

    code = "job_not_finished"


class IdempotencyConflict(RequestError):
    """The Idempotency-Key stands for another request."""

    code = "idempotency_conflict"


class JobError(RerankqError):
    """The job ended without a result."""


class JobCanceled(JobError):
    """Somebody canceled the job."""

    code = "job_canceled"


class JobExpired(JobError):
    """The job's deadline passed before it was scored."""

    code = "job_expired"


class ScoringFailed(JobError):
    """The engine could not score the job."""

    code = "scoring_failed"


class ServiceError(RerankqError):
    """The service cannot answer now. `retry_after` is in whole seconds, where a time is known."""

    def __init__(self, message: str, *, param: str | None = None, retry_after: int | None = None) -> None:
        super().__init__(message, param=param)
        self.retry_after = retry_after


class Overloaded(ServiceError):
    """More is asked than the service takes at once."""

    code = "overloaded"


class WaitTimedOut(ServiceError):
    """The caller's wait ended; the job `job_id` goes on."""

    code = "wait_timed_out"

    def __init__(self, message: str, *, job_id: str, retry_after: int) -> None:
        super().__init__(message, retry_after=retry_after)
        self.job_id = job_id


class ModelUnavailable(ServiceError):
    """No worker of the model is up, and the last one that tried failed to start."""

    code = "model_unavailable"


class StoreUnavailable(ServiceError):
    """Redis cannot be reached, or refuses to write."""

    code = "store_unavailable"


class StoreDamaged(StoreUnavailable):
    """What Redis holds is not what was written, or not all of it: asked for again, it is the same."""

    code = "store_damaged"


class InternalError(ServiceError):
    """A fault of ours; the log has the rest under the request's id."""

    code = "internal_error"


class ConfigurationError(RerankqError):
    """The operator can mend it: a file, a setting, or a model that cannot score."""

    code = "configuration"
