"""OpenAI's batch routes: create, list, read, cancel."""

import time
from typing import Any

from fastapi import APIRouter, Request, Response

from api.batches.creation import read_batch
from api.batches.descriptions import describe_batch
from api.dependencies import AppStateDep, JobOwnerDep, RerankOwnerDep
from api.http.request_body import read_json_object
from api.http.request_headers import read_idempotency_key
from api.http.responses import json_response
from api.openapi.batch_schemas import (
    EXAMPLE_BATCH,
    EXAMPLE_BATCHES,
    EXAMPLE_NEW_BATCH,
    Batch,
    Batches,
    NewBatch,
    request_doc,
)
from api.openapi.schemas import response_doc
from api.routes.job_queries import INVALID_PARAMETER
from api.routes.pages import DEFAULT_LIMIT, describe_list, list_parameters, read_number
from shared.ledger.batch_record import BatchKind

router = APIRouter(prefix="/v1/batches", tags=["batches"])

MAX_LIMIT = 100
_Responses = dict[int | str, dict[str, Any]]
_NOT_FOUND = {"description": "There is no such batch, or it belongs to another key."}
_ONE: _Responses = {200: response_doc(Batch, EXAMPLE_BATCH, "The batch.")}
_READ: _Responses = _ONE | {404: _NOT_FOUND}
_CREATE: _Responses = _ONE | {
    400: {"description": "A field is invalid; the message names it."},
    404: {"description": "There is no such input file or model."},
    422: {"description": "The Idempotency-Key was used for another request."},
    429: {"description": "The unfinished batches of this key have too many tokens."},
}
_LIST: _Responses = {
    200: response_doc(Batches, EXAMPLE_BATCHES, "A page of batches."),
    400: INVALID_PARAMETER,
    404: _NOT_FOUND,
}


@router.post("", responses=_CREATE, openapi_extra=request_doc(NewBatch, EXAMPLE_NEW_BATCH))
async def create_batch(request: Request, state: AppStateDep, owner: RerankOwnerDep) -> Response:
    """Rank the requests of an uploaded file. With an `Idempotency-Key`, the same request creates one batch."""
    body = read_batch(await read_json_object(request, state.settings.max_body_bytes))
    record = await state.batches.create(body, owner, read_idempotency_key(request))
    return json_response(describe_batch(record, time.time()))


@router.get("", responses=_LIST, openapi_extra=list_parameters())
async def list_batches(request: Request, state: AppStateDep, owner: JobOwnerDep) -> Response:
    """The caller's batches, newest first."""
    limit = read_number(request.query_params, "limit", DEFAULT_LIMIT, 1, MAX_LIMIT)
    records, has_more = await state.batches.page(owner, BatchKind.BATCH, limit, request.query_params.get("after"))
    now = time.time()
    return json_response(describe_list([describe_batch(record, now) for record in records], has_more))


@router.get("/{batch_id}", responses=_READ)
async def read_batch_status(batch_id: str, state: AppStateDep, owner: JobOwnerDep) -> Response:
    """A batch's status, counts, and files."""
    return json_response(describe_batch(await state.batches.read(batch_id, owner, BatchKind.BATCH), time.time()))


@router.post("/{batch_id}/cancel", responses=_READ)
async def cancel_batch(batch_id: str, state: AppStateDep, owner: JobOwnerDep) -> Response:
    """Cancel a batch: what is done is kept, the other requests are in the error file."""
    return json_response(describe_batch(await state.batches.cancel(batch_id, owner, BatchKind.BATCH), time.time()))
