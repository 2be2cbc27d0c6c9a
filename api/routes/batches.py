"""OpenAI's batch routes: create, list, read, cancel."""

import time

from fastapi import APIRouter, Request, Response

from api.batches.creation import read_batch
from api.batches.descriptions import describe_batch
from api.dependencies import AppStateDep, JobOwnerDep, RerankOwnerDep
from api.http.request_body import read_json_object
from api.http.request_headers import read_idempotency_key
from api.http.responses import json_response
from api.routes.pages import DEFAULT_LIMIT, describe_list, read_number
from shared.ledger.batch_record import BatchKind

router = APIRouter(prefix="/v1/batches", tags=["batches"])

MAX_LIMIT = 100


@router.post("")
async def create_batch(request: Request, state: AppStateDep, owner: RerankOwnerDep) -> Response:
    """Rank the requests of an uploaded file. With an `Idempotency-Key`, the same request creates one batch."""
    body = read_batch(await read_json_object(request, state.settings.max_body_bytes))
    record = await state.batches.create(body, owner, read_idempotency_key(request))
    return json_response(describe_batch(record, time.time()))


@router.get("")
async def list_batches(request: Request, state: AppStateDep, owner: JobOwnerDep) -> Response:
    """The caller's batches, newest first."""
    limit = read_number(request.query_params, "limit", DEFAULT_LIMIT, 1, MAX_LIMIT)
    records, has_more = await state.batches.page(owner, BatchKind.BATCH, limit, request.query_params.get("after"))
    now = time.time()
    return json_response(describe_list([describe_batch(record, now) for record in records], has_more))


@router.get("/{batch_id}")
async def read_batch_status(batch_id: str, state: AppStateDep, owner: JobOwnerDep) -> Response:
    """A batch's status, counts, and files."""
    return json_response(describe_batch(await state.batches.read(batch_id, owner, BatchKind.BATCH), time.time()))


@router.post("/{batch_id}/cancel")
async def cancel_batch(batch_id: str, state: AppStateDep, owner: JobOwnerDep) -> Response:
    """Cancel a batch: what is done is kept, the other requests are in the error file."""
    return json_response(describe_batch(await state.batches.cancel(batch_id, owner, BatchKind.BATCH), time.time()))
