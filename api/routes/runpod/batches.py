"""RunPod's batches: requests are added to an open batch, and run as one job when it is finalized."""

from fastapi import APIRouter, Request, Response

from api.dependencies import AppStateDep
from api.http.request_body import read_json
from api.http.responses import json_response
from api.openapi.runpod_schemas import BATCH, BATCH_BODY, FINALIZED, NEW_BATCH
from api.routes.runpod.inputs import Endpoint, find_endpoint, lines_of, read_requests
from api.routes.runpod.owners import JobOwner, RerankOwner
from api.routes.runpod.statuses import IN_QUEUE, describe_batch, status_of

router = APIRouter()


@router.post("/{endpoint:path}/batch", responses=NEW_BATCH, openapi_extra=BATCH_BODY)
async def create_batch(endpoint: str, request: Request, state: AppStateDep, owner: RerankOwner) -> Response:
    """Create an open batch, with its first requests if there are any. It runs when it is finalized."""
    found = _endpoint(endpoint, request, state)
    requests = read_requests(await read_json(request, state.settings.max_body_bytes), found)
    batch = await state.open_batches.create(owner, found.spec.name, lines_of(requests))
    return json_response(await describe_batch(state, batch))


@router.post("/{endpoint:path}/batch/{batch_id}/requests", responses=BATCH, openapi_extra=BATCH_BODY)
async def add_requests(
    endpoint: str, batch_id: str, request: Request, state: AppStateDep, owner: RerankOwner
) -> Response:
    """Add requests to an open batch."""
    found = _endpoint(endpoint, request, state)
    requests = read_requests(await read_json(request, state.settings.max_body_bytes), found)
    batch = await state.open_batches.add(batch_id, owner, found.spec.name, lines_of(requests))
    return json_response(await describe_batch(state, batch))


@router.post("/{endpoint:path}/batch/{batch_id}/finalize", responses=FINALIZED)
async def finalize_batch(
    endpoint: str, batch_id: str, request: Request, state: AppStateDep, owner: RerankOwner
) -> Response:
    """Close a batch and run it. Repeated calls change nothing."""
    model = _endpoint(endpoint, request, state).spec.name
    job = await state.open_batches.finalize(batch_id, owner, model)
    return json_response({"id": job.id, "status": status_of(job) if job.status.final else IN_QUEUE})


@router.get("/{endpoint:path}/batch/{batch_id}", responses=BATCH)
async def read_batch(endpoint: str, batch_id: str, request: Request, state: AppStateDep, owner: JobOwner) -> Response:
    """A batch, with the output of each request when it is completed."""
    model = _endpoint(endpoint, request, state).spec.name
    return json_response(await describe_batch(state, await state.open_batches.read(batch_id, owner, model)))


@router.post("/{endpoint:path}/batch/{batch_id}/cancel", responses=BATCH)
async def cancel_batch(endpoint: str, batch_id: str, request: Request, state: AppStateDep, owner: JobOwner) -> Response:
    """Cancel a batch, open or running. One that has ended is unchanged."""
    model = _endpoint(endpoint, request, state).spec.name
    return json_response(await describe_batch(state, await state.open_batches.cancel(batch_id, owner, model)))


def _endpoint(name: str, request: Request, state: AppStateDep) -> Endpoint:
    return find_endpoint(name, state.service.models, request.app.state.root)
