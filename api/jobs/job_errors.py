"""Turns what is stored of a job, or is missing, into the error that its caller gets."""

from shared.errors import (
    InternalError,
    InvalidRequest,
    JobNotFound,
    RerankqError,
    ScoringFailed,
    StoreDamaged,
    TextTooLong,
)
from shared.ledger.job_record import JobFailure
from shared.store.client import RETRY_AFTER_SECONDS


def error_from_failure(failure: JobFailure | None) -> RerankqError:
    """The error of a failed job, as it was when it was recorded."""
    match failure:
        case None:
            return InternalError("the job failed without a reason")
        case JobFailure(code=TextTooLong.code):
            tokens, limit = failure.tokens or 0, failure.limit or 0
            return TextTooLong(failure.message, param=failure.param, tokens=tokens, limit=limit)
        case JobFailure(code=InvalidRequest.code):
            return InvalidRequest(failure.message, param=failure.param)
        case _:
            return ScoringFailed(failure.message)


def not_found(job_id: str) -> JobNotFound:
    """The job does not exist, or belongs to another key."""
    return JobNotFound(f"there is no job {job_id[:100]!r}", param="id")


def lost(item: str) -> StoreDamaged:
    """Redis has lost `item`, which can be sent again."""
    return StoreDamaged(f"the job store has lost {item}; send it again", retry_after=RETRY_AFTER_SECONDS)
