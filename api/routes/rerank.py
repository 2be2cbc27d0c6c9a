"""The rerank paths: the root's and every dialect's, all through one handler."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Request, Response

from api.dependencies import Parts, get_owner, get_parts
from api.dialects.base import Dialect
from api.dialects.registry import PREFIXED, ROOT
from api.examples import RERANK_REQUEST_BODY, RERANK_RESPONSES
from api.exchange import json_response, read_idempotency_key, read_json_object, read_preference, unless_disconnected
from api.preference import Preference
from api.routes.jobs import describe
from shared.contracts import RerankRequest, RerankResult
from shared.errors import WaitTimedOut
from shared.jobs import JobRecord


def make_router() -> APIRouter:
    """Every dialect's paths, the root's without a prefix."""
    router = APIRouter()
    for dialect, prefix in [(ROOT, ""), *((dialect, f"/{dialect.name}") for dialect in PREFIXED)]:
        for path in dialect.paths:
            router.add_api_route(
                prefix + path,
                _handler(dialect),
                methods=["POST"],
                tags=[dialect.name],
                summary="Rank documents by their relevance to a query",
                operation_id=f"{dialect.name}{path.replace('/', '_')}",
                responses=RERANK_RESPONSES,
                openapi_extra=RERANK_REQUEST_BODY,
            )
    return router


def _handler(dialect: Dialect) -> Callable[..., Awaitable[Response]]:
    async def rerank(request: Request) -> Response:
        # Asked for here, and not as dependencies: FastAPI takes longer over those than both of them need.
        parts = await get_parts(request)
        owner = await get_owner(request, parts)
        body = await read_json_object(request, parts.settings.max_body_bytes)
        parsed = dialect.parse(body)
        preference = read_preference(request)
        if preference.job_after and not preference.wait_seconds:
            record = await parts.service.submit(
                parsed, dialect=dialect.name, owner=owner, idempotency=read_idempotency_key(request)
            )
            return accepted(record, preference)
        return await _wait(request, parts, dialect, owner, parsed, preference)

    return rerank


async def _wait(
    request: Request,
    parts: Parts,
    dialect: Dialect,
    owner: str,
    parsed: RerankRequest,
    preference: Preference,
) -> Response:
    try:
        result = await unless_disconnected(
            request,
            parts.service.rerank(
                parsed,
                dialect=dialect.name,
                owner=owner,
                wait_seconds=preference.wait_seconds,
                idempotency=read_idempotency_key(request),
            ),
        )
    except WaitTimedOut as error:
        if not preference.job_after:
            raise
        return accepted(await parts.service.job(error.job_id, owner), preference)
    return ranked(dialect, result, preference)


def ranked(dialect: Dialect, result: RerankResult, preference: Preference | None = None) -> Response:
    """The result in its dialect, with the times it took."""
    start = f"start;dur={result.start_ms:g}, " if result.start_ms else ""
    timing = f"queue;dur={result.queue_ms:g}, {start}inference;dur={result.inference_ms:g}"
    return json_response(dialect.render(result), headers={"Server-Timing": timing} | _applied(preference))


def accepted(record: JobRecord, preference: Preference) -> Response:
    """202 with the job, for a caller that asked for it."""
    headers: dict[str, str] = {"Location": f"/v1/jobs/{record.id}"} | _applied(preference)
    return json_response(describe(record), 202, headers)


def _applied(preference: Preference | None) -> dict[str, Any]:
    applied = preference.applied if preference else None
    return {"Preference-Applied": applied} if applied else {}
