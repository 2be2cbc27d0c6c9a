"""The routes below /runpod/v2/{endpoint}. Every answer has the status 200; only runsync and status-sync wait."""

import asyncio
import math
import time

from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from api.batches.creation import BulkJobCreation
from api.dependencies import AppState, AppStateDep
from api.http.disconnects import cancel_on_disconnect
from api.http.request_body import read_json_object
from api.http.request_headers import read_idempotency_key
from api.http.responses import json_response
from api.jobs.fallbacks import try_models
from api.openapi.runpod_schemas import CANCEL, HEALTH, PARAMETERS, PURGE, RETRY, RUN, RUN_BODY, RUNSYNC, STATUS, STREAM
from api.routes import bulk_jobs
from api.routes.pages import read_number
from api.routes.runpod.calls import MAX_POLICY_MS, Call, read_call
from api.routes.runpod.inputs import Input, find_endpoint, lines_of, read_inputs
from api.routes.runpod.owners import JobOwner, RerankOwner
from api.routes.runpod.statuses import (
    CANCELLED,
    COMPLETED,
    FAILED,
    IN_QUEUE,
    ONE_INPUT,
    describe,
    job_id_of,
    outputs,
    status_of,
    sync_id,
)
from api.webhooks.addresses import AddressRules, check_url, parse_networks
from shared.contracts import RerankRequest
from shared.errors import InvalidRequest, JobNotFound
from shared.ledger.batch_record import BatchKind, BatchRecord, Wake
from shared.ledger.job_index import AnyJob
from shared.ledger.job_record import JobRecord
from shared.pools.signals import PoolSignals

router = APIRouter()

DEFAULT_WAIT_MS, MIN_WAIT_MS, MAX_WAIT_MS = 90_000, 1000, 300_000
_BULK_SECONDS = "24h"


@router.post("/{endpoint:path}/run", responses=RUN, openapi_extra=RUN_BODY)
async def run(endpoint: str, request: Request, state: AppStateDep, owner: RerankOwner) -> Response:
    """Create a job. A list of inputs is one job, whose output is a list."""
    record = await _submit(request, state, endpoint, owner, None)
    return json_response({"id": record.id, "status": IN_QUEUE})


@router.post("/{endpoint:path}/runsync", responses=RUNSYNC, openapi_extra=RUN_BODY | PARAMETERS["wait"])
async def run_sync(endpoint: str, request: Request, state: AppStateDep, owner: RerankOwner) -> Response:
    """Create a job and wait for its end, at most `wait` milliseconds. When the caller leaves, the job is cancelled."""
    seconds = _read_wait(request)
    record = await _submit(request, state, endpoint, owner, seconds)
    try:
        ended = await cancel_on_disconnect(request, _read(state, record.id, owner, seconds))
    except ClientDisconnect:
        await asyncio.shield(_cancel(state, record.id, owner))
        raise
    return json_response(await describe(state, ended, sync_id(ended.id)))


@router.get("/{endpoint:path}/status/{job_id}", responses=STATUS, openapi_extra=PARAMETERS["ttl"])
async def read_status(endpoint: str, job_id: str, request: Request, state: AppStateDep, owner: JobOwner) -> Response:
    """A job with its output or error. With `ttl`, it can be read for so many more milliseconds at most."""
    ttl = read_number(request.query_params, "ttl", 0, 1, MAX_POLICY_MS)
    record = await _find(request, state, endpoint, job_id, owner)
    described = await describe(state, record, job_id)
    if ttl and isinstance(record, JobRecord):
        await state.queue.shorten(record, ttl / 1000)
    return json_response(described)


@router.get("/{endpoint:path}/status-sync/{job_id}", responses=STATUS, openapi_extra=PARAMETERS["wait"])
async def wait_for_status(
    endpoint: str, job_id: str, request: Request, state: AppStateDep, owner: JobOwner
) -> Response:
    """A job as `status` returns it, when it has ended or after `wait` milliseconds."""
    seconds = _read_wait(request)
    record = await cancel_on_disconnect(request, _find(request, state, endpoint, job_id, owner, seconds))
    return json_response(await describe(state, record, job_id))


@router.get("/{endpoint:path}/stream/{job_id}", responses=STREAM)
async def read_stream(endpoint: str, job_id: str, request: Request, state: AppStateDep, owner: JobOwner) -> Response:
    """The outputs of a completed job: once, afterwards none. A cancelled job reads FAILED here.

    RunPod's SDK for Python reads until a call returns no output and a status that it knows as final.
    """
    record = await _find(request, state, endpoint, job_id, owner)
    status = status_of(record)
    chunks = []
    if status == COMPLETED:
        # Read first: outputs that cannot be read are not marked as streamed.
        found = await outputs(state, record)
        chunks = found if await state.queue.take_stream(record.id) else []
    shown = FAILED if status == CANCELLED else status
    return json_response({"status": shown, "stream": [{"output": output} for output in chunks]})


@router.post("/{endpoint:path}/cancel/{job_id}", responses=CANCEL)
async def cancel(endpoint: str, job_id: str, request: Request, state: AppStateDep, owner: JobOwner) -> Response:
    """Cancel a job. One that has ended is unchanged."""
    await _find(request, state, endpoint, job_id, owner)
    record = await _cancel(state, job_id_of(job_id), owner)
    return json_response({"id": job_id, "status": status_of(record)})


@router.post("/{endpoint:path}/retry/{job_id}", responses=RETRY)
async def retry(endpoint: str, job_id: str, request: Request, state: AppStateDep, owner: JobOwner) -> Response:
    """Queue a job again that failed or timed out, with the same id and input."""
    record = await _find(request, state, endpoint, job_id, owner)
    if isinstance(record, BatchRecord):
        raise InvalidRequest("id: a job of a list of inputs, or of low priority, cannot be retried", param="id")
    await state.queue.retry(record)
    return json_response({"id": job_id, "status": IN_QUEUE})


@router.post("/{endpoint:path}/purge-queue", responses=PURGE)
async def purge_queue(endpoint: str, request: Request, state: AppStateDep, owner: JobOwner) -> Response:
    """Cancel the caller's jobs at this endpoint that no worker has started."""
    model = find_endpoint(endpoint, state.service.models, request.app.state.root).spec.name
    return json_response({"removed": await state.queue.purge(model, owner), "status": "completed"})


@router.get("/{endpoint:path}/health", responses=HEALTH)
async def read_health(endpoint: str, request: Request, state: AppStateDep, _: JobOwner) -> Response:
    """The jobs of an endpoint's model, those of all keys together, and its workers."""
    model = find_endpoint(endpoint, state.service.models, request.app.state.root).spec.name
    pools, counts = await asyncio.gather(state.pools.fetch(), state.queue.counts(model))
    signals = pools[model].signals
    jobs = {
        "completed": counts.succeeded,
        "failed": counts.failed + counts.expired,
        "inProgress": signals.interactive.running_jobs + signals.batch.running_jobs,
        "inQueue": signals.interactive.queued_jobs + signals.batch.queued_jobs,
        "retried": counts.retried,
    }
    return json_response({"jobs": jobs, "workers": _describe_workers(signals)})


def _describe_workers(signals: PoolSignals) -> dict[str, int]:
    """No worker is ever throttled: a pool has as many as its machines have room for."""
    running = len(signals.busy_workers)
    return {
        "idle": max(0, signals.ready - running),
        "initializing": signals.starting,
        "ready": signals.ready,
        "running": running,
        "throttled": 0,
    }


def _read_wait(request: Request) -> float:
    """The parameter `wait` in seconds."""
    return read_number(request.query_params, "wait", DEFAULT_WAIT_MS, MIN_WAIT_MS, MAX_WAIT_MS) / 1000


async def _submit(
    request: Request, state: AppState, endpoint_name: str, owner: str, wait_seconds: float | None
) -> AnyJob:
    endpoint = find_endpoint(endpoint_name, state.service.models, request.app.state.root)
    call = read_call(await read_json_object(request, state.settings.max_body_bytes))
    if call.options.webhook is not None:
        rules = AddressRules(parse_networks(state.settings.webhook_networks))
        check_url(call.options.webhook.url, rules, "webhook")
    found, key = read_inputs(call.input, endpoint), read_idempotency_key(request)
    if isinstance(found, list) or call.low_priority:
        body = _bulk_job(call, found, endpoint.spec.name)
        return await state.batches.create_bulk_job(body, owner, key)

    async def attempt(asked: RerankRequest, key: str | None, _: float | None) -> JobRecord:
        return await state.service.submit(
            asked,
            dialect=found.dialect.name,
            owner=owner,
            idempotency=key,
            options=call.options,
            wait_seconds=wait_seconds,
        )

    return await try_models(found.request, attempt, idempotency=key)


def _bulk_job(call: Call, found: Input | list[Input], model: str) -> BulkJobCreation:
    """The job of many requests for a list of inputs, or for one that may start no worker."""
    if call.options.execution_seconds is not None:
        param = "policy.executionTimeout"
        message = f"{param} is not supported for a list of inputs, nor with policy.lowPriority"
        raise InvalidRequest(message, param=param)
    ttl = call.options.kept_seconds
    return BulkJobCreation(
        model=model,
        requests=lines_of(found if isinstance(found, list) else [found]),
        deadline=_BULK_SECONDS if ttl is None else f"{math.ceil(ttl)}s",
        wake=Wake.WHEN_WARM if call.low_priority else Wake.NOW,
        metadata=None if isinstance(found, list) else ONE_INPUT,
        webhook=call.options.webhook,
    )


async def _find(
    request: Request, state: AppState, endpoint: str, public_id: str, owner: str, seconds: float = 0.0
) -> AnyJob:
    """The job, when it has ended or after `seconds`. Raises ModelNotFound for an unknown endpoint, and JobNotFound."""
    find_endpoint(endpoint, state.service.models, request.app.state.root)
    return await _read(state, job_id_of(public_id), owner, seconds)


async def _read(state: AppState, job_id: str, owner: str, seconds: float) -> AnyJob:
    if bulk_jobs.is_bulk_job(job_id):
        limit = min(seconds, state.settings.wait_seconds)
        record = await bulk_jobs.wait_for_end(state, job_id, owner, limit)
        # Its deadline is the ttl of the policy: 24 hours unless the caller named another one.
        if record.expires_ms <= time.time() * 1000:
            raise JobNotFound(f"the ttl of the job {job_id[:100]!r} has passed", param="id")
        return record
    return await state.service.job(job_id, owner, wait_seconds=seconds)


async def _cancel(state: AppState, job_id: str, owner: str) -> AnyJob:
    if bulk_jobs.is_bulk_job(job_id):
        return await state.batches.cancel(job_id, owner, BatchKind.JOB)
    return await state.service.cancel(job_id, owner)
