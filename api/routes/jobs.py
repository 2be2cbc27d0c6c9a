"""Jobs: look at one, wait for it, read its result, cancel it, delete it."""

from typing import Any

from fastapi import APIRouter, Request, Response

from api.dependencies import OwnerDep, PartsDep
from api.dialects.registry import by_name
from api.http.request_body import json_response, read_preference, unless_disconnected
from api.openapi.schemas import EXAMPLE_JOB, EXAMPLE_JOB_DONE, Job, answering
from shared.ledger.job_record import JobRecord, JobState

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_Responses = dict[int | str, dict[str, Any]]
_NOT_FOUND = {"description": "There is no such job, or it belongs to another key."}
_NOT_THERE = {"description": "The job has not ended, or was canceled."}
_FAILED = {"description": "The job failed; the message says why."}
_EXPIRED = {"description": "The job's deadline passed before it was scored."}
_READ: _Responses = {200: answering(Job, EXAMPLE_JOB_DONE, "The job."), 404: _NOT_FOUND}
_CANCELED = EXAMPLE_JOB | {"state": "canceled", "finished": EXAMPLE_JOB_DONE["finished"]}
_CANCEL: _Responses = {200: answering(Job, _CANCELED, "The job as it is now."), 404: _NOT_FOUND}
_RESULTS: _Responses = {
    200: {"description": "The answer, in the dialect that asked."},
    404: _NOT_FOUND,
    409: _NOT_THERE,
    500: _FAILED,
    504: _EXPIRED,
}


@router.get("/{job_id}", responses=_READ)
async def read_job(job_id: str, request: Request, parts: PartsDep, owner: OwnerDep) -> Response:
    """A job's state and progress. `Prefer: wait=N` answers when it has ended, after N seconds at the latest."""
    preference = read_preference(request)
    seconds = preference.wait_seconds or 0.0
    record = await unless_disconnected(request, parts.service.job(job_id, owner, wait_seconds=seconds))
    applied = {"Preference-Applied": preference.applied} if seconds and preference.applied else None
    return json_response(describe(record), headers=applied)


@router.get("/{job_id}/results", responses=_RESULTS)
async def read_results(job_id: str, parts: PartsDep, owner: OwnerDep) -> Response:
    """A finished job's result, byte for byte what the waiting call would have got, in the dialect that asked."""
    record = await parts.service.job(job_id, owner)
    result = await parts.service.result(record)
    return json_response(by_name(record.dialect).render(result))


@router.post("/{job_id}/cancel", responses=_CANCEL)
async def cancel_job(job_id: str, parts: PartsDep, owner: OwnerDep) -> Response:
    """Cancel a job. One that has ended stays as it is."""
    return json_response(describe(await parts.service.cancel(job_id, owner)))


@router.delete("/{job_id}", status_code=204, responses={404: _NOT_FOUND})
async def delete_job(job_id: str, parts: PartsDep, owner: OwnerDep) -> Response:
    """Remove a job and its result; one that has not ended is canceled first."""
    await parts.service.delete(job_id, owner)
    return Response(status_code=204)


def describe(record: JobRecord) -> dict[str, Any]:
    """A job as its caller sees it. Times are Unix seconds."""
    described: dict[str, Any] = {
        "id": record.id,
        "object": "job",
        "state": record.state,
        "model": record.model,
        "created": record.created_ms / 1000,
        "progress": {
            "pairs": record.pairs,
            "shards": record.shards,
            "shards_done": record.shards - record.left,
        },
        "results": f"/v1/jobs/{record.id}/results" if record.state is JobState.SUCCEEDED else None,
    }
    if record.started_ms:
        described["started"] = record.started_ms / 1000
    if record.finished_ms:
        described["finished"] = record.finished_ms / 1000
    if record.failure is not None:
        described["error"] = {"type": record.failure.code, "message": record.failure.message}
    return {name: value for name, value in described.items() if value is not None}
