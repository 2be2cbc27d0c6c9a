"""Routes for operators, load balancers and Prometheus: name, health, readiness, metrics. Only metrics need a key."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response

from api import VERSION
from api.dependencies import AdminDep, AppState, AppStateDep
from api.http.responses import json_response
from api.openapi.health_schemas import Health, Readiness
from api.openapi.schemas import EXAMPLE_MODEL, response_doc
from api.pool_problems import problem_of
from shared.pools.signals import PoolSignals

router = APIRouter(tags=["operations"])


_READY = {
    "status": "ready",
    "store": "reachable",
    "problems": [],
    "models": {EXAMPLE_MODEL: {"ready": 1, "starting": 0, "draining": 0}},
}
_NOT_READY = _READY | {
    "status": "not ready",
    "store": "unreachable",
    "problems": ["Redis is unreachable: requests are refused until it answers"],
}
HEALTH_RESPONSES: dict[int | str, dict[str, Any]] = {200: response_doc(Health, {"status": "ok"}, "It does.")}
_READY_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: response_doc(Readiness, _READY, "A request that is sent now is accepted."),
    503: response_doc(Readiness, _NOT_READY, "Redis is away."),
}


@router.get("/", include_in_schema=False)
async def welcome() -> Response:
    """The name of the service and the address of its documentation."""
    return json_response({"name": "rerankq", "version": VERSION, "docs": "/docs", "models": "/v1/models"})


@router.get("/health", responses=HEALTH_RESPONSES)
async def health() -> Response:
    """200 while the process answers."""
    return json_response({"status": "ok"})


@router.get("/ready", responses=_READY_RESPONSES)
async def ready(state: AppStateDep) -> Response:
    """200 when Redis answers: requests are accepted, and start a worker where none runs. 503 otherwise."""
    store = state.pools.store_reachable
    problems = [
        f"{name}: {problem}"
        for name, pool in state.pools.all().items()
        if (problem := problem_of(pool, state.pools.start_failure(name)))
    ]
    if not store:
        problems.insert(0, "Redis is unreachable: requests are refused until it answers")
    body = {
        "status": "ready" if store else "not ready",
        "store": "reachable" if store else "unreachable",
        "problems": problems,
        "models": {name: _describe(state, name, pool.signals) for name, pool in state.pools.all().items()},
    }
    return json_response(body, 200 if store else 503, None if store else {"Retry-After": "1"})


@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request, state: AppStateDep, _: AdminDep) -> Response:
    """All metrics in Prometheus's text format, or as OpenMetrics where the client accepts it; 503 without Redis."""
    read = await state.readings.read()
    # On a thread: writing thousands of samples would delay other requests.
    body, content_type = await asyncio.to_thread(state.exposition.render, read, request.headers.get("accept", ""))
    return Response(body, headers={"content-type": content_type})


def _describe(state: AppState, name: str, signals: PoolSignals) -> dict[str, Any]:
    described: dict[str, Any] = {
        "ready": signals.ready,
        "starting": signals.starting,
        "draining": signals.draining,
    }
    # Failures of single workers do not matter while another one is ready.
    if (failed := state.pools.start_failure(name)) is not None:
        described["failure"] = failed.reason
    return described
