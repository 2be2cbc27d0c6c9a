"""Job routes: list, read, wait, result, cancel, delete."""

import time
from typing import Any

from fastapi import APIRouter, Request, Response

from api.batches.descriptions import describe_bulk_job
from api.dependencies import AppStateDep, JobOwnerDep
from api.dialects.registry import dialect_by_name
from api.http.disconnects import cancel_on_disconnect
from api.http.request_headers import read_prefer_header
from api.http.responses import json_response
from api.openapi.schemas import EXAMPLE_JOB, EXAMPLE_JOB_DONE, EXAMPLE_JOBS, Job, Jobs, response_doc
from api.routes import bulk_jobs
from api.routes.job_queries import INVALID_PARAMETER, PARAMETERS, read_query
from shared.ledger.batch_record import BatchKind
from shared.ledger.job_index import AnyJob
from shared.ledger.job_record import JobRecord, JobStatus, Position

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_Responses = dict[int | str, dict[str, Any]]
_NOT_FOUND = {"description": "There is no such job, or it belongs to another key."}
_NOT_THERE = {"description": "The job has not ended, or was canceled."}
_FAILED = {"description": "The job failed; the message has the reason."}
_EXPIRED = {"description": "The job's deadline passed before it was scored."}
_READ: _Responses = {200: response_doc(Job, EXAMPLE_JOB_DONE, "The job."), 404: _NOT_FOUND}
_LIST: _Responses = {
    200: response_doc(Jobs, EXAMPLE_JOBS, "A page of jobs."),
    400: INVALID_PARAMETER,
}
_CANCELED = EXAMPLE_JOB | {"status": "canceled", "finished": EXAMPLE_JOB_DONE["finished"]}
_CANCEL: _Responses = {200: response_doc(Job, _CANCELED, "The job as it is now."), 404: _NOT_FOUND}
_RESULTS: _Responses = {
    200: {"description": "The answer, in the dialect of the request."},
    404: _NOT_FOUND,
    409: _NOT_THERE,
    500: _FAILED,
    504: _EXPIRED,
}


@router.get("", responses=_LIST, openapi_extra={"parameters": PARAMETERS})
async def list_jobs(request: Request, state: AppStateDep, owner: JobOwnerDep) -> Response:
    """The caller's jobs, newest first: those of its API key, or without keys all of them."""
    wanted, limit, after = read_query(request.query_params)
    records, position = await state.service.jobs(owner, wanted, limit, after)
    return json_response(describe_page([describe_any(record) for record in records], position))


@router.get("/{job_id}", responses=_READ)
async def read_job(job_id: str, request: Request, state: AppStateDep, owner: JobOwnerDep) -> Response:
    """A job's status and progress. `Prefer: wait=N` waits up to N seconds for the end of the job."""
    preference = read_prefer_header(request)
    seconds = preference.wait_seconds or 0.0
    applied = {"Preference-Applied": preference.applied} if seconds and preference.applied else None
    if bulk_jobs.is_bulk_job(job_id):
        limit = min(seconds, state.settings.wait_seconds)
        bulk = await cancel_on_disconnect(request, bulk_jobs.wait_for_end(state, job_id, owner, limit))
        return json_response(describe_bulk_job(bulk, time.time()), headers=applied)
    record = await cancel_on_disconnect(request, state.service.job(job_id, owner, wait_seconds=seconds))
    return json_response(describe(record), headers=applied)


@router.get("/{job_id}/results", responses=_RESULTS)
async def read_results(job_id: str, request: Request, state: AppStateDep, owner: JobOwnerDep) -> Response:
    """A finished job's result, byte for byte as a waiting call would have returned it.

    For a job of many requests, a page of results: `after` is how many to leave out, `limit` how many to return.
    """
    if bulk_jobs.is_bulk_job(job_id):
        return await bulk_jobs.read_page(request, state, job_id, owner)
    record = await state.service.job(job_id, owner)
    result = await state.service.result(record)
    return json_response(dialect_by_name(record.dialect).render(result))


@router.post("/{job_id}/cancel", responses=_CANCEL)
async def cancel_job(job_id: str, state: AppStateDep, owner: JobOwnerDep) -> Response:
    """Cancel a job. One that has ended is unchanged. Of many requests, those that are done are kept."""
    if bulk_jobs.is_bulk_job(job_id):
        canceled = await state.batches.cancel(job_id, owner, BatchKind.JOB)
        return json_response(describe_bulk_job(canceled, time.time()))
    return json_response(describe(await state.service.cancel(job_id, owner)))


@router.delete("/{job_id}", status_code=204, responses={404: _NOT_FOUND})
async def delete_job(job_id: str, state: AppStateDep, owner: JobOwnerDep) -> Response:
    """Delete a job and its result, canceling it first."""
    if bulk_jobs.is_bulk_job(job_id):
        await state.batches.delete(job_id, owner, BatchKind.JOB)
    else:
        await state.service.delete(job_id, owner)
    return Response(status_code=204)


def describe_progress(record: JobRecord, now: float) -> dict[str, Any]:
    """A job's progress at `now` (Unix seconds), with rate and estimated end once workers have scored a part.

    The rate counts the pairs that workers scored since the job started: known pairs cost no time.
    """
    progress: dict[str, Any] = {
        "pairs_total": record.pairs,
        "pairs_done": record.pairs_known + record.pairs_scored,
        "shards_total": record.shards,
        "shards_done": record.shards - record.shards_left,
    }
    # A job can start and end within one millisecond.
    elapsed = max((record.finished_ms / 1000 or now) - record.started_ms / 1000, 0.001)
    if record.started_ms and record.pairs_scored:
        rate = record.pairs_scored / elapsed
        progress["pairs_per_second"] = round(rate, 1)
        if not record.status.final:
            progress["estimated_finish"] = round(now + (record.pairs - progress["pairs_done"]) / rate, 1)
    return progress


def describe_page(jobs: list[dict[str, Any]], position: Position | None) -> dict[str, Any]:
    """A page of described jobs; the next one begins after `position`."""
    return {
        "object": "list",
        "data": jobs,
        "has_more": position is not None,
        "next": None if position is None else str(position),
    }


def describe_any(record: AnyJob) -> dict[str, Any]:
    """A job of one request or of many, as its caller sees it."""
    return describe(record) if isinstance(record, JobRecord) else describe_bulk_job(record, time.time())


def describe(record: JobRecord) -> dict[str, Any]:
    """A job as its caller sees it. Times are Unix seconds."""
    described: dict[str, Any] = {
        "id": record.id,
        "object": "job",
        "status": record.status,
        "model": record.model,
        "created": record.created_ms / 1000,
        "progress": describe_progress(record, time.time()),
        "events": f"/v1/jobs/{record.id}/events",
        "results": f"/v1/jobs/{record.id}/results" if record.status is JobStatus.SUCCEEDED else None,
    }
    if record.started_ms:
        described["started"] = record.started_ms / 1000
    if record.finished_ms:
        described["finished"] = record.finished_ms / 1000
    if record.failure is not None:
        described["error"] = {"type": record.failure.code, "message": record.failure.message}
    return {name: value for name, value in described.items() if value is not None}
