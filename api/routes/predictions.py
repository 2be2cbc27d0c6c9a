"""Replicate's predictions: a prediction is a job, and a model of any owner is the model of that name or alias.

A version of a model is one of its names: clients that name versions by their hashes need the hash as an alias.
"""

import asyncio
import re
from typing import Any

from fastapi import APIRouter, Request, Response

from api.dependencies import AppState, AppStateDep, JobOwnerDep, OwnerDep, RerankOwnerDep
from api.dialects.base import Dialect
from api.dialects.registry import REPLICATE, SUPERSET, dialect_by_name
from api.dialects.replicate import PAIRS, VERSION
from api.http.disconnects import cancel_on_disconnect
from api.http.request_body import read_json_object
from api.http.request_headers import read_idempotency_key
from api.http.responses import json_response
from api.jobs.fallbacks import try_models
from api.openapi.replicate_schemas import (
    CREATE,
    CREATE_BODY,
    CREATE_OF_MODEL_BODY,
    INPUT_SCHEMA,
    MODEL,
    MODEL_VERSION,
    PREDICTION,
)
from api.routes.timestamps import rfc3339
from shared.contracts import RerankRequest
from shared.errors import InvalidRequest, ModelNotFound
from shared.ledger.job_record import JobRecord, JobStatus
from shared.ledger.submission import JobOptions
from shared.models import ModelRegistry, ModelSpec
from shared.webhooks import WebhookTarget

PREFIX = f"/{REPLICATE.name}/v1"
router = APIRouter(prefix=PREFIX, tags=[REPLICATE.name])

MAX_WAIT_SECONDS = 60
COG_VERSION = "0.16.0"
"""The version of Replicate's packaging tool whose form the schema of a version has."""
_WAIT = re.compile(r'(?:^|,)\s*wait\s*(?:=\s*"?([0-9]{1,9})"?\s*)?(?=$|[,;])', re.IGNORECASE)
STARTING = "starting"
_STATUS = {
    JobStatus.QUEUED: STARTING,
    JobStatus.RUNNING: "processing",
    JobStatus.SUCCEEDED: "succeeded",
    JobStatus.CANCELED: "canceled",
}
_WEBHOOKS = ("webhook", "webhook_completed", "webhook_events_filter")


@router.post("/predictions", status_code=201, responses=CREATE, openapi_extra=CREATE_BODY)
async def create_prediction(request: Request, state: AppStateDep, owner: RerankOwnerDep) -> Response:
    """Create a prediction; `version` is `OWNER/NAME`, `OWNER/NAME:VERSION` or a version's id.

    `Prefer: wait=N` waits up to N seconds for the output, at most 60; `Prefer: wait` waits for 60.
    """
    started = asyncio.get_running_loop().time()
    body = await read_json_object(request, state.settings.max_body_bytes)
    return await _create(request, state, owner, body, _model_of(body.get(VERSION), state.service.models), started)


@router.post(
    "/models/{account}/{name}/predictions", status_code=201, responses=CREATE, openapi_extra=CREATE_OF_MODEL_BODY
)
@router.post("/deployments/{account}/{name}/predictions", include_in_schema=False)
async def create_prediction_of_model(
    account: str, name: str, request: Request, state: AppStateDep, owner: RerankOwnerDep
) -> Response:
    """Create a prediction of a model, as `POST /predictions` does. The owner of the model is ignored."""
    started = asyncio.get_running_loop().time()
    model = state.service.models.resolve(f"{account}/{name}").name
    body = await read_json_object(request, state.settings.max_body_bytes)
    return await _create(request, state, owner, body, model, started)


@router.get("/predictions/{job_id}", responses=PREDICTION)
async def read_prediction(job_id: str, request: Request, state: AppStateDep, owner: JobOwnerDep) -> Response:
    """A prediction, with its output when it has succeeded, or the error when it has failed."""
    record = await state.service.job(job_id, owner)
    return json_response(await _describe(request, state, record))


@router.post("/predictions/{job_id}/cancel", responses=PREDICTION)
async def cancel_prediction(job_id: str, request: Request, state: AppStateDep, owner: JobOwnerDep) -> Response:
    """Cancel a prediction. One that has ended is unchanged."""
    record = await state.service.cancel(job_id, owner)
    return json_response(await _describe(request, state, record))


@router.get("/models/{account}/{name}", responses=MODEL)
async def read_model(account: str, name: str, request: Request, state: AppStateDep, _: OwnerDep) -> Response:
    """A served model, with its only version. The owner is ignored."""
    spec = state.service.models.resolve(f"{account}/{name}")
    unknown = dict.fromkeys(
        ("description", "github_url", "paper_url", "license_url", "cover_image_url", "default_example")
    )
    described = {
        "url": f"{_url(request)}/models/{account}/{name}",
        "owner": account,
        "name": name,
        "visibility": "private",
        "run_count": 0,
        "latest_version": _describe_version(spec.name),
    }
    return json_response(described | unknown)


@router.get("/models/{account}/{name}/versions/{version:path}", responses=MODEL_VERSION)
async def read_model_version(account: str, name: str, version: str, state: AppStateDep, _: OwnerDep) -> Response:
    """A version of a served model: any name of that model."""
    models = state.service.models
    if models.resolve(version) is not models.resolve(f"{account}/{name}"):
        raise ModelNotFound(f"model {f'{account}/{name}'[:200]!r} has no version {version[:200]!r}", param=VERSION)
    return json_response(_describe_version(version))


def _model_of(version: Any, models: ModelRegistry) -> str:
    """The name of the model that a version stands for. Raises InvalidRequest."""
    if not isinstance(version, str) or not version:
        raise InvalidRequest("version is required: OWNER/NAME, OWNER/NAME:VERSION or a version's id", param=VERSION)
    try:
        return models.resolve(version).name
    except ModelNotFound as error:
        name, colon, _ = version.partition(":")
        if colon and (spec := _find(name, models)) is not None:
            return spec.name
        raise InvalidRequest(f"version: {error.message}", param=VERSION) from None


def _find(name: str, models: ModelRegistry) -> ModelSpec | None:
    try:
        return models.resolve(name)
    except ModelNotFound:
        return None


async def _create(
    request: Request, state: AppState, owner: str, body: dict[str, Any], model: str, started: float
) -> Response:
    for field in _WEBHOOKS:
        if body.get(field) is not None:
            raise InvalidRequest(
                f"{field} is not supported: send the webhook of this service in the input", param=field
            )
    dialect, parsed, webhook = _read_input(body.get("input"), model, state.service.models)
    seconds = _wait_seconds(request)

    async def attempt(asked: RerankRequest, key: str | None, _: float | None) -> JobRecord:
        return await state.service.submit(
            asked,
            dialect=dialect.name,
            owner=owner,
            idempotency=key,
            options=JobOptions(webhook=webhook),
            wait_seconds=seconds,
        )

    record = await try_models(parsed, attempt, idempotency=read_idempotency_key(request))
    if seconds is not None:
        # The SDK gives up half a second after the time that it asked for, counted from its request.
        left = started + seconds - asyncio.get_running_loop().time()
        record = await cancel_on_disconnect(request, state.service.job(record.id, owner, wait_seconds=max(left, 0.0)))
    described = await _describe(request, state, record)
    if not record.status.final:
        # The SDK takes the answer to a waiting call for the end, unless the status is this one.
        described["status"] = STARTING
    waited_in_vain = seconds is not None and not record.status.final
    return json_response(described, 202 if waited_in_vain else 201)


def _read_input(given: Any, model: str, models: ModelRegistry) -> tuple[Dialect, RerankRequest, WebhookTarget | None]:
    """The dialect of the input, the request and the webhook in it. Raises InvalidRequest naming the field."""
    if not isinstance(given, dict):
        raise InvalidRequest("input is required: an object", param="input")
    dialect = REPLICATE.dialects[0] if PAIRS in given else SUPERSET.dialects[0].dialect_for_body(given)
    try:
        parsed = dialect.parse(given)
        webhook = SUPERSET.dialects[0].read_webhook(given)
    except InvalidRequest as error:
        raise InvalidRequest(f"input: {error.message}", param=f"input.{error.param}") from None
    if parsed.model is not None and ((spec := _find(parsed.model, models)) is None or spec.name != model):
        message = f"input.model: {parsed.model[:200]!r} is not the model of this prediction, {model!r}"
        raise InvalidRequest(message, param="input.model")
    return dialect, parsed.model_copy(update={"model": model}), webhook


def _wait_seconds(request: Request) -> float | None:
    """How long the caller waits for the output; None if it does not."""
    preference = _WAIT.search(", ".join(request.headers.getlist("prefer")))
    if preference is None:
        return None
    return float(min(int(preference[1] or MAX_WAIT_SECONDS), MAX_WAIT_SECONDS)) or None


async def _describe(request: Request, state: AppState, record: JobRecord) -> dict[str, Any]:
    """The prediction of a job. The input is not returned: it can be large, and SDKs do not need it."""
    url = f"{_url(request)}/predictions/{record.id}"
    succeeded = record.status is JobStatus.SUCCEEDED
    output = dialect_by_name(record.dialect).render(await state.service.result(record)) if succeeded else None
    return {
        "id": record.id,
        "model": record.model if "/" in record.model else f"rerankq/{record.model}",
        "version": record.model,
        "status": _STATUS.get(record.status, "failed"),
        "input": {},
        "output": output,
        "error": _error_of(record),
        "logs": "",
        "metrics": _metrics(record),
        "created_at": rfc3339(record.created_ms),
        "started_at": rfc3339(record.started_ms) if record.started_ms else None,
        "completed_at": rfc3339(record.finished_ms) if record.finished_ms else None,
        "urls": {"get": url, "cancel": f"{url}/cancel"},
    }


def _error_of(record: JobRecord) -> str | None:
    if record.status is JobStatus.EXPIRED:
        return "the prediction passed its deadline before it was scored"
    if record.status is not JobStatus.FAILED:
        return None
    return record.failure.message if record.failure else "the prediction failed without a reason"


def _metrics(record: JobRecord) -> dict[str, float]:
    """Seconds, of a prediction that has ended. One whose scores are all known never started."""
    if not record.finished_ms:
        return {}
    started = record.started_ms or record.finished_ms
    return {
        "predict_time": (record.finished_ms - started) / 1000,
        "total_time": (record.finished_ms - record.created_ms) / 1000,
    }


def _describe_version(name: str) -> dict[str, Any]:
    """SDKs read the schema to learn whether the output is a stream: it is not."""
    return {"id": name, "created_at": rfc3339(0), "cog_version": COG_VERSION, "openapi_schema": INPUT_SCHEMA}


def _url(request: Request) -> str:
    return f"{str(request.base_url).rstrip('/')}{PREFIX}"
