"""Routes of jobs of many requests: create them, and read their results in pages.

routes/jobs.py and routes/job_events.py call the functions here for ids that begin with BULK_JOB_PREFIX.
"""

import asyncio
import time
from typing import Any

from fastapi import APIRouter, Request, Response

from api.batches.creation import read_bulk_job
from api.batches.descriptions import describe_bulk_job
from api.batches.results import describe_row
from api.dependencies import AppState, AppStateDep, RerankOwnerDep
from api.http.request_body import read_json_object
from api.http.request_headers import read_idempotency_key
from api.http.responses import json_response
from api.openapi.batch_schemas import (
    EXAMPLE_BULK_JOB,
    EXAMPLE_NEW_BULK_JOB,
    NewBulkJob,
    request_doc,
)
from api.openapi.schemas import BulkJob, response_doc
from api.routes.pages import read_number
from shared.errors import JobNotFound
from shared.ledger.batch_record import BULK_JOB_PREFIX, BatchKind, BatchRecord

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_Responses = dict[int | str, dict[str, Any]]
_CREATE: _Responses = {
    202: response_doc(BulkJob, EXAMPLE_BULK_JOB, "The job."),
    400: {"description": "A field is invalid; the message names it."},
    404: {"description": "The model is not served."},
    413: {"description": "The body is over the limit: upload a file, and create a batch."},
    422: {"description": "The Idempotency-Key was used for another request."},
    429: {"description": "The unfinished batches of this key have too many tokens."},
    507: {"description": "There is no room for the requests."},
}
DEFAULT_PAGE, MAX_PAGE = 100, 1000
_MAX_AFTER = 10**12
EVENT_SECONDS = 1.0
"""The pause between two looks at the batch."""


def is_bulk_job(job_id: str) -> bool:
    """Whether the id is that of a job of many requests."""
    return job_id.startswith(BULK_JOB_PREFIX)


@router.post("", status_code=202, responses=_CREATE, openapi_extra=request_doc(NewBulkJob, EXAMPLE_NEW_BULK_JOB))
async def create_job(request: Request, state: AppStateDep, owner: RerankOwnerDep) -> Response:
    """Create a job of many requests. With an `Idempotency-Key`, the same request creates one job."""
    body = read_bulk_job(await read_json_object(request, state.settings.max_body_bytes))
    record = await state.batches.create_bulk_job(body, owner, read_idempotency_key(request))
    headers = {"Location": f"/v1/jobs/{record.id}"}
    return json_response(describe_bulk_job(record, time.time()), 202, headers)


async def read_bulk(state: AppState, job_id: str, owner: str) -> BatchRecord:
    """The record of a job of many requests. Raises JobNotFound, also for other jobs."""
    if not is_bulk_job(job_id):
        raise JobNotFound(f"there is no job of many requests {job_id[:100]!r}", param="id")
    return await state.batches.read(job_id, owner, BatchKind.JOB)


async def wait_for_end(state: AppState, job_id: str, owner: str, seconds: float) -> BatchRecord:
    """The record when the job has ended, or after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        record = await read_bulk(state, job_id, owner)
        left = deadline - time.monotonic()
        if record.status.final or left <= 0:
            return record
        await asyncio.sleep(min(EVENT_SECONDS, left))


async def read_page(request: Request, state: AppState, job_id: str, owner: str) -> Response:
    """A page of results: those behind the first `after` ones, at most `limit`. Can be read while the job runs."""
    after = read_number(request.query_params, "after", 0, 0, _MAX_AFTER)
    limit = read_number(request.query_params, "limit", DEFAULT_PAGE, 1, MAX_PAGE)
    # Read first: rows that are stored after this look are on the next page.
    record = await read_bulk(state, job_id, owner)
    rows = [describe_row(row) for row in await state.results.page(job_id, after, limit)]
    total = record.rows_ok + record.rows_failed
    more = not record.status.final or after + len(rows) < total
    page: dict[str, Any] = {
        "object": "list",
        "data": rows,
        "has_more": more,
        "next": after + len(rows) if more else None,
    }
    return json_response(page)
