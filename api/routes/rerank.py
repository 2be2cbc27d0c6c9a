"""The rerank paths of the root and of every dialect, all with one handler."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Request, Response

from api.auth.key_store import Scope
from api.dependencies import AppState, get_app_state, get_owner
from api.dialects.base import Dialect
from api.dialects.registry import Family, mounted_families
from api.http.disconnects import cancel_on_disconnect
from api.http.request_body import read_json_object
from api.http.request_headers import WaitPreference, read_idempotency_key, read_prefer_header
from api.http.responses import json_response
from api.jobs.fallbacks import try_models
from api.routes.jobs import describe
from shared.contracts import RerankRequest, RerankResult
from shared.errors import WaitTimedOut
from shared.ledger.job_record import JobRecord
from shared.ledger.submission import DEFAULT_OPTIONS, JobOptions


def make_router(root: Family) -> APIRouter:
    """Every dialect's paths; those of `root` also without a prefix. api/openapi/document.py documents them."""
    router = APIRouter()
    for prefix, family in mounted_families(root):
        # Documented once, without the prefix.
        is_twin = family is root and prefix != ""
        for dialect in family.dialects:
            for path in (*dialect.paths, *dialect.aliases):
                router.add_api_route(
                    prefix + path,
                    _handler(dialect),
                    methods=["POST"],
                    tags=[family.name],
                    summary=dialect.summary,
                    operation_id=f"{family.name}{path.replace('/', '_')}",
                    include_in_schema=not is_twin and path in dialect.paths,
                )
    return router


def _handler(dialect: Dialect) -> Callable[..., Awaitable[Response]]:
    async def rerank(request: Request) -> Response:
        # Called directly: as FastAPI dependencies they would take longer than both need.
        state = await get_app_state(request)
        owner = await get_owner(request, state, Scope.RERANK)
        body = await read_json_object(request, state.settings.max_body_bytes)
        spoken = dialect.dialect_for_body(body)
        parsed = spoken.parse(body)
        # Read from every body at the path, also from one that another dialect answers.
        webhook = dialect.read_webhook(body)
        options = DEFAULT_OPTIONS if webhook is None else JobOptions(webhook=webhook)
        preference = read_prefer_header(request)
        if preference.job_after and not preference.wait_seconds:
            return await _submit(request, state, spoken, owner, parsed, preference, options)
        return await _wait(request, state, spoken, owner, parsed, preference, options)

    return rerank


async def _submit(
    request: Request,
    state: AppState,
    dialect: Dialect,
    owner: str,
    parsed: RerankRequest,
    preference: WaitPreference,
    options: JobOptions,
) -> Response:
    async def attempt(asked: RerankRequest, key: str | None, _: float | None) -> JobRecord:
        return await state.service.submit(asked, dialect=dialect.name, owner=owner, idempotency=key, options=options)

    record = await try_models(parsed, attempt, idempotency=read_idempotency_key(request))
    return accepted(record, preference)


async def _wait(
    request: Request,
    state: AppState,
    dialect: Dialect,
    owner: str,
    parsed: RerankRequest,
    preference: WaitPreference,
    options: JobOptions,
) -> Response:
    async def attempt(asked: RerankRequest, key: str | None, seconds: float | None) -> RerankResult:
        return await state.service.rerank(
            asked,
            dialect=dialect.name,
            owner=owner,
            wait_seconds=seconds,
            idempotency=key,
            patient=preference.job_after,
            options=options,
        )

    limit = state.settings.wait_seconds if parsed.fallbacks else None
    seconds = limit if preference.wait_seconds is None else preference.wait_seconds
    key = read_idempotency_key(request)
    try:
        result = await cancel_on_disconnect(request, try_models(parsed, attempt, idempotency=key, seconds=seconds))
    except WaitTimedOut as error:
        if not preference.job_after:
            raise
        return accepted(await state.service.job(error.job_id, owner), preference)
    return ranked(dialect, result, preference)


def ranked(dialect: Dialect, result: RerankResult, preference: WaitPreference | None = None) -> Response:
    """The result in its dialect, with a Server-Timing header."""
    start = f"start;dur={result.start_ms:g}, " if result.start_ms else ""
    timing = f"queue;dur={result.queue_ms:g}, {start}inference;dur={result.inference_ms:g}"
    return json_response(dialect.render(result), headers={"Server-Timing": timing} | _applied(preference))


def accepted(record: JobRecord, preference: WaitPreference) -> Response:
    """202 with the job."""
    headers: dict[str, str] = {"Location": f"/v1/jobs/{record.id}"} | _applied(preference)
    return json_response(describe(record), 202, headers)


def _applied(preference: WaitPreference | None) -> dict[str, Any]:
    applied = preference.applied if preference else None
    return {"Preference-Applied": applied} if applied else {}
