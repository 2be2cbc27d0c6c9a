"""Describes jobs as RunPod does: its ids, statuses and times, with the output or the error. Times are milliseconds.

The id of a job that began with runsync is the job's with another prefix: `sync-X` is `job-X`. A job of many requests
has the output of each input, in order.
"""

from typing import Any

from api.batches.open_batches import AnyBatch
from api.dependencies import AppState
from api.dialects.registry import dialect_by_name
from shared.ledger.batch_record import BULK_JOB_PREFIX, BatchRecord, BatchStatus
from shared.ledger.job_index import AnyJob
from shared.ledger.job_record import JobRecord, JobStatus
from shared.ledger.open_batch_ledger import OpenStatus

SYNC_PREFIX = "sync-"
JOB_PREFIX = "job-"
ONE_INPUT = {"input": "one"}
"""The metadata of a job of many requests that has only one, and shows its output alone."""
IN_QUEUE, IN_PROGRESS, COMPLETED, FAILED, CANCELLED, TIMED_OUT = (
    *("IN_QUEUE", "IN_PROGRESS", "COMPLETED"),
    *("FAILED", "CANCELLED", "TIMED_OUT"),
)
OPEN = "OPEN"
"""The status of a batch that has not been finalized."""
_NAMES = {
    JobStatus.QUEUED: IN_QUEUE,
    JobStatus.RUNNING: IN_PROGRESS,
    JobStatus.SUCCEEDED: COMPLETED,
    JobStatus.FAILED: FAILED,
    JobStatus.CANCELED: CANCELLED,
    JobStatus.EXPIRED: TIMED_OUT,
}
_ERRORS = {
    CANCELLED: "the job was cancelled",
    TIMED_OUT: "the job was not finished within its executionTimeout, its ttl, or the service's own limit",
}


def sync_id(job_id: str) -> str:
    """The id of a job that runsync created."""
    return SYNC_PREFIX + job_id.removeprefix(JOB_PREFIX)


def job_id_of(public_id: str) -> str:
    """The job with an id of either form."""
    if not public_id.startswith(SYNC_PREFIX):
        return public_id
    rest = public_id.removeprefix(SYNC_PREFIX)
    return rest if rest.startswith(BULK_JOB_PREFIX) else JOB_PREFIX + rest


def status_of(record: AnyJob) -> str:
    """The status by RunPod's names. A job of many requests that is being cancelled is cancelled."""
    if isinstance(record, JobRecord):
        return _NAMES[record.status]
    return CANCELLED if record.status is BatchStatus.CANCELLING else _NAMES[record.job_status]


async def describe(state: AppState, record: AnyJob, public_id: str) -> dict[str, Any]:
    """The job with its status and times, its `output` when it is completed, or its `error` when it is not."""
    status = status_of(record)
    described: dict[str, Any] = {"id": public_id, "status": status} | _times(record)
    if status == COMPLETED:
        return described | await _outcome(state, record)
    if status == FAILED:
        return described | {"error": _failure(record)}
    return described | ({"error": _ERRORS[status]} if status in _ERRORS else {})


async def describe_batch(state: AppState, batch: AnyBatch) -> dict[str, Any]:
    """A batch as `describe` shows its job, with the numbers of its requests. RunPod's statuses have none for OPEN."""
    if isinstance(batch, BatchRecord):
        counts = {"total": batch.lines, "completed": batch.rows_ok, "failed": batch.rows_failed}
        return await describe(state, batch, batch.id) | {"requests": counts}
    status = CANCELLED if batch.status is OpenStatus.CANCELED else OPEN
    return {"id": batch.id, "status": status, "requests": {"total": batch.requests, "completed": 0, "failed": 0}}


async def outputs(state: AppState, record: AnyJob) -> list[Any]:
    """The outputs of a completed job: one for each input."""
    outcome = await _outcome(state, record)
    if "output" not in outcome:
        return []
    return [outcome["output"]] if _has_one_input(record) else list(outcome["output"])


def _has_one_input(record: AnyJob) -> bool:
    return isinstance(record, JobRecord) or record.metadata == ONE_INPUT


async def _outcome(state: AppState, record: AnyJob) -> dict[str, Any]:
    """The `output` of a job that succeeded. With only one input, and that one failed: the job failed."""
    if isinstance(record, JobRecord):
        result = await state.service.result(record)
        return {"output": dialect_by_name(record.dialect).render(result)}
    rows = [row async for row in state.results.rows(record.id, 0)]
    if not _has_one_input(record):
        return {"output": [_output_of(row) for row in rows]}
    if rows and rows[0]["error"] is not None:
        return {"status": FAILED, "error": rows[0]["error"]["message"]}
    return {"output": _output_of(rows[0]) if rows else None}


def _output_of(row: dict[str, Any]) -> Any:
    """The answer to one input, or an object with its `error`."""
    return row["response"]["body"] if row["error"] is None else {"error": row["error"]["message"]}


def _failure(record: AnyJob) -> str:
    if isinstance(record, JobRecord):
        return record.failure.message if record.failure else "the job failed without a reason"
    return "; ".join(error.message for error in record.errors) or "the job failed without a reason"


def _times(record: AnyJob) -> dict[str, int]:
    """`delayTime` until the start, once it has started, and `executionTime` until the end, once it has ended."""
    if isinstance(record, JobRecord):
        started, ended = record.started_ms, record.finished_ms
    else:
        started, ended = record.in_progress_ms, record.ended_ms
    # A job whose scores are all known, or that ended in the queue, never started.
    if not started and ended:
        return {"delayTime": max(0, ended - record.created_ms), "executionTime": 0}
    times = {"delayTime": max(0, started - record.created_ms)} if started else {}
    return times | ({"executionTime": max(0, ended - started)} if ended else {})
