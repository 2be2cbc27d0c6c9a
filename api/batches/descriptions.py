"""Describes batches and files as OpenAI's API does, and jobs of many requests like other jobs. Pure functions."""

from typing import Any

from shared.ledger.batch_record import BatchKind, BatchRecord, BatchStatus, FileRecord

_ENDED_AT = {
    BatchStatus.COMPLETED: "completed_at",
    BatchStatus.FAILED: "failed_at",
    BatchStatus.EXPIRED: "expired_at",
    BatchStatus.CANCELLED: "cancelled_at",
}


def describe_any_batch(record: BatchRecord, now: float) -> dict[str, Any]:
    """A batch, or a job of many requests, as the API that created it shows it at `now` (Unix seconds)."""
    return describe_batch(record, now) if record.kind is BatchKind.BATCH else describe_bulk_job(record, now)


def describe_batch(record: BatchRecord, now: float) -> dict[str, Any]:
    """OpenAI's batch object at `now` (Unix seconds), with the pairs and the estimated end in `progress`."""
    errors = [
        {"code": error.code, "message": error.message, "param": error.param, "line": error.line}
        for error in record.errors
    ]
    completed, failed = record.rows_ok, record.rows_failed
    described: dict[str, Any] = {
        "id": record.id,
        "object": "batch",
        "endpoint": record.endpoint,
        "errors": {"object": "list", "data": errors} if errors else None,
        "input_file_id": record.input_file,
        "completion_window": record.window,
        "status": record.status,
        "output_file_id": record.output_file,
        "error_file_id": record.error_file,
        "created_at": record.created_ms // 1000,
        "in_progress_at": _seconds(record.in_progress_ms),
        "expires_at": record.expires_ms // 1000,
        "finalizing_at": _seconds(record.finalizing_ms),
        "cancelling_at": _seconds(record.cancelling_ms),
        **dict.fromkeys(_ENDED_AT.values()),
        "request_counts": {"total": record.lines, "completed": completed, "failed": failed},
        "metadata": record.metadata,
        "progress": describe_progress(record, now),
    }
    if record.status.final:
        described[_ENDED_AT[record.status]] = _seconds(record.ended_ms)
    return described


def describe_progress(record: BatchRecord, now: float) -> dict[str, Any]:
    """The requests and pairs that are done, failed ones included, with rate and estimated end while it runs."""
    progress: dict[str, Any] = {
        "requests_total": record.lines,
        "requests_done": max(record.rows_seen, record.rows_ok + record.rows_failed),
        "pairs_total": record.pairs,
        "pairs_done": max(record.pairs_seen, record.pairs_done),
    }
    if record.rate and not record.status.final:
        progress["pairs_per_second"] = round(record.rate, 1)
        left = max(0, record.pairs - progress["pairs_done"])
        progress["estimated_finish"] = round(now + left / record.rate, 1)
    elif record.in_progress_ms and record.ended_ms > record.in_progress_ms:
        seconds = (record.ended_ms - record.in_progress_ms) / 1000
        progress["pairs_per_second"] = round(progress["pairs_done"] / seconds, 1)
    return progress


def describe_bulk_progress(record: BatchRecord, now: float) -> dict[str, Any]:
    """The progress of a job of many requests: like that of a batch, which counts failed requests elsewhere."""
    return describe_progress(record, now) | {"requests_failed": record.rows_failed}


def describe_bulk_job(record: BatchRecord, now: float) -> dict[str, Any]:
    """A job of many requests at `now` (Unix seconds)."""
    described: dict[str, Any] = {
        "id": record.id,
        "object": "job",
        "status": record.job_status,
        "model": record.model,
        "created": record.created_ms / 1000,
        "expires": record.expires_ms / 1000,
        "wake": record.wake,
        "progress": describe_bulk_progress(record, now),
        "results": f"/v1/jobs/{record.id}/results",
        "events": f"/v1/jobs/{record.id}/events",
        "metadata": record.metadata,
    }
    if record.in_progress_ms:
        described["started"] = record.in_progress_ms / 1000
    if record.ended_ms:
        described["finished"] = record.ended_ms / 1000
    if record.errors:
        described["error"] = {"type": record.errors[0].code, "message": record.errors[0].message}
    return {name: value for name, value in described.items() if value is not None}


def describe_file(record: FileRecord) -> dict[str, Any]:
    """OpenAI's file object."""
    return {
        "id": record.id,
        "object": "file",
        "bytes": record.size,
        "created_at": record.created_ms // 1000,
        "expires_at": record.expires_ms // 1000,
        "filename": record.filename,
        "purpose": record.purpose,
        "status": "processed",
        "status_details": None,
    }


def _seconds(milliseconds: int) -> int | None:
    return milliseconds // 1000 if milliseconds else None
