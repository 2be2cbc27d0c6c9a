"""Bifrost's asynchronous door: one path accepts a rerank request at once, the other is polled for its result.

At the root the same paths take the body of the root's `/v1/rerank`. What they create are jobs like all others.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Request, Response

from api.auth.key_store import Scope
from api.dependencies import AppState, AppStateDep, JobOwnerDep, get_app_state, get_owner
from api.dialects.base import Dialect
from api.dialects.registry import Family, dialect_by_name, family
from api.http.request_body import read_json_object
from api.http.request_headers import read_idempotency_key
from api.http.responses import json_response
from api.jobs.fallbacks import try_models
from api.openapi.async_schemas import POLL, SUBMIT
from api.routes.timestamps import rfc3339
from shared.contracts import RerankRequest
from shared.errors import JobNotFinished, JobNotFound, RerankqError, StoreUnavailable
from shared.ledger.job_record import JobRecord, JobStatus
from shared.ledger.submission import JobOptions

PATH = "/v1/async/rerank"
RESULT_TTL_HEADER = "x-bf-async-job-result-ttl"
MAX_RESULT_SECONDS = 86_400.0
"""The longest lifetime of a result that a client can ask for, unless the server's own is longer."""
_SECONDS = re.compile(r"[0-9]{1,9}")
_STATUS = {JobStatus.QUEUED: "pending", JobStatus.RUNNING: "processing", JobStatus.SUCCEEDED: "completed"}


def make_router(root: Family) -> APIRouter:
    """The paths under /bifrost, and at the root. api/openapi/document.py adds their bodies and errors."""
    router = APIRouter(tags=["jobs"])
    for prefix, spoken in (("", root), ("/bifrost", family("bifrost"))):
        name = f"{prefix.lstrip('/') or 'root'}_async"
        router.add_api_route(
            prefix + PATH,
            _submitter(spoken.dialect_at("/v1/rerank"), prefix + PATH),
            methods=["POST"],
            status_code=202,
            summary="Accept a rerank request, to be polled for",
            operation_id=f"{name}_submit",
            responses=SUBMIT,
        )
        router.add_api_route(
            prefix + PATH + "/{job_id}",
            read_async_job,
            methods=["GET"],
            summary="Poll for the result of an accepted request",
            operation_id=f"{name}_read",
            responses=POLL,
        )
    return router


def _submitter(dialect: Dialect, path: str) -> Callable[[Request], Awaitable[Response]]:
    async def submit(request: Request) -> Response:
        """Accept a request of this path's format at once, as Bifrost does; poll for the result with the job's id."""
        state = await get_app_state(request)
        owner = await get_owner(request, state, Scope.RERANK)
        body = await read_json_object(request, state.settings.max_body_bytes)
        spoken = dialect.dialect_for_body(body)
        options = JobOptions(result_seconds=_result_seconds(request, state), webhook=dialect.read_webhook(body))

        async def attempt(asked: RerankRequest, key: str | None, _: float | None) -> JobRecord:
            return await state.service.submit(asked, dialect=spoken.name, owner=owner, idempotency=key, options=options)

        record = await try_models(spoken.parse(body), attempt, idempotency=read_idempotency_key(request))
        described = _describe(record) | {"status": "pending"}
        return json_response(described, 202, {"Location": f"{path}/{record.id}"})

    return submit


async def read_async_job(job_id: str, state: AppStateDep, owner: JobOwnerDep) -> Response:
    """A job as Bifrost describes it: 202 until it has ended, then 200 with `result` or `error`."""
    record = await state.service.job(job_id, owner)
    if not record.status.final:
        return json_response(_describe(record), 202)
    dialect = dialect_by_name(record.dialect)
    described = _describe(record) | {
        "completed_at": rfc3339(record.finished_ms),
        "expires_at": rfc3339(record.finished_ms + record.result_ttl_ms),
    }
    try:
        result = await state.service.result(record)
    except (StoreUnavailable, JobNotFound, JobNotFinished):
        # It was deleted or retried in this moment.
        raise
    except RerankqError as error:
        return json_response(
            described | {"status_code": dialect.status_of(error), "error": dialect.render_error(error)}
        )
    return json_response(described | {"status_code": 200, "result": dialect.render(result)})


def _describe(record: JobRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "status": _STATUS.get(record.status, "failed"),
        "created_at": rfc3339(record.created_ms),
    }


def _result_seconds(request: Request, state: AppState) -> float | None:
    """The lifetime that the client asks for, within the limit; None, the server's, when it is not a number above 0."""
    text = request.headers.get(RESULT_TTL_HEADER, "").strip()
    seconds = int(text) if _SECONDS.fullmatch(text) else 0
    return min(seconds, max(MAX_RESULT_SECONDS, state.settings.result_seconds)) or None
