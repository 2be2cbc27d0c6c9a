"""The events of a job, of one request or of many, as a stream of server-sent events.

Events are `progress`, `result` and `end`. Only results have ids: the id of a result is its number, counted from 1.
A reader that comes back with the last id gets what follows, and always the end.
"""

import asyncio
import time
from contextlib import ExitStack, aclosing
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.responses import StreamingResponse

from api.batches.descriptions import describe_bulk_job, describe_bulk_progress
from api.batches.results import describe_row
from api.dependencies import AppState, AppStateDep, JobOwnerDep
from api.dialects.registry import dialect_by_name
from api.http.event_stream import Events, EventStream, encode_event
from api.http.request_headers import read_prefer_header
from api.openapi.event_schemas import EVENT_PARAMETERS, EXAMPLE_EVENTS
from api.routes import bulk_jobs
from api.routes.jobs import describe, describe_progress
from shared.errors import InvalidRequest, StoreDamaged
from shared.ledger.batch_record import BatchRecord
from shared.ledger.job_record import JobRecord, JobStatus

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"description": "The events.", "content": {"text/event-stream": {"example": EXAMPLE_EVENTS}}},
    400: {"description": "Last-Event-ID or `results` is invalid."},
    404: {"description": "There is no such job, or it belongs to another key."},
    503: {"description": "Too many callers wait or follow jobs."},
}


@router.get(
    "/{job_id}/events",
    responses=_EVENTS,
    response_class=StreamingResponse,
    openapi_extra={"parameters": EVENT_PARAMETERS},
)
async def follow_job(job_id: str, request: Request, state: AppStateDep, owner: JobOwnerDep) -> Response:
    """Server-sent events of a job: `progress` when it changes, `result` for each result in order, and `end`.

    `end` has the job as `GET /v1/jobs/{id}` returns it. The id of a result is its number, counted from 1: with
    `Last-Event-ID` the stream continues behind it. `results=false` leaves out the results. `Prefer: wait=N` ends the
    stream after N seconds.
    """
    after, results = _last_event(request), _wants_results(request)
    seconds = read_prefer_header(request).wait_seconds or None
    events: Events
    if bulk_jobs.is_bulk_job(job_id):
        bulk = await bulk_jobs.read_bulk(state, job_id, owner)
        events = _bulk_events(state, bulk, after if results else None)
    else:
        record = await state.service.job(job_id, owner)
        events = _events(state, record, wants_result=results and after == 0)
    held = ExitStack()
    held.enter_context(state.followers.counted())
    return EventStream(events, held, seconds)


async def _events(state: AppState, record: JobRecord, *, wants_result: bool) -> Events:
    shown: dict[str, Any] = {}
    async with aclosing(state.followers.follow(record)) as records:
        async for latest in records:
            progress = {"status": latest.status, **describe_progress(latest, time.time())}
            changed, shown = progress != shown, progress
            yield encode_event("progress", progress) if changed else None
            if latest.status is JobStatus.SUCCEEDED and wants_result:
                yield await _result(state, latest)
            if latest.status.final:
                yield encode_event("end", describe(latest))


async def _result(state: AppState, record: JobRecord) -> bytes | None:
    try:
        result = await state.service.result(record)
    except StoreDamaged:
        # The job succeeded, but its result is lost. GET /v1/jobs/{id}/results returns that error.
        return None
    return encode_event("result", dialect_by_name(record.dialect).render(result), "1")


async def _bulk_events(state: AppState, record: BatchRecord, after: int | None) -> Events:
    """The events of a job of many requests: results behind the first `after` ones, None: no results."""
    shown: dict[str, Any] = {}
    while True:
        latest = await bulk_jobs.read_bulk(state, record.id, record.owner)
        if after is not None:
            async for row in state.results.rows(record.id, after):
                after += 1
                yield encode_event("result", describe_row(row), str(after))
        progress = {"status": latest.job_status, **describe_bulk_progress(latest, time.time())}
        changed, shown = progress != shown, progress
        yield encode_event("progress", progress) if changed else None
        if latest.status.final:
            yield encode_event("end", describe_bulk_job(latest, time.time()))
            return
        await asyncio.sleep(bulk_jobs.EVENT_SECONDS)


def _last_event(request: Request) -> int:
    text = request.headers.get("last-event-id", "").strip()
    if text and not (text.isascii() and text.isdigit() and len(text) < 13):
        raise InvalidRequest("Last-Event-ID must be the id of an event of this job", param="Last-Event-ID")
    return int(text or 0)


def _wants_results(request: Request) -> bool:
    text = request.query_params.get("results", "true")
    if text not in ("true", "false"):
        raise InvalidRequest("results must be true or false", param="results")
    return text == "true"
