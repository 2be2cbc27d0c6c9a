"""For operators and load balancers: alive, ready. The only routes that never need a key."""

from typing import Any

from fastapi import APIRouter, Response

from api.bodies import EXAMPLE_MODEL, Health, Readiness, answering
from api.dependencies import PartsDep
from api.exchange import json_response
from shared.heartbeats import PoolHealth

router = APIRouter(tags=["operations"])


_READY = {"status": "ready", "store": "reachable", "models": {EXAMPLE_MODEL: {"ready": 1, "starting": 0}}}
_NOT_READY = _READY | {"status": "not ready", "models": {EXAMPLE_MODEL: {"ready": 0, "starting": 1}}}
HEALTH_RESPONSES: dict[int | str, dict[str, Any]] = {200: answering(Health, {"status": "ok"}, "It does.")}
_READY_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: answering(Readiness, _READY, "Work can be done now."),
    503: answering(Readiness, _NOT_READY, "Redis is away, or no worker is up."),
}


@router.get("/health", responses=HEALTH_RESPONSES)
async def health() -> Response:
    """200 as long as the process answers."""
    return json_response({"status": "ok"})


@router.get("/ready", responses=_READY_RESPONSES)
async def ready(parts: PartsDep) -> Response:
    """200 when Redis answers and at least one model has a worker that takes work; 503 with what is missing."""
    pools = parts.pools.all()
    store = parts.pools.store_reachable
    is_ready = store and any(pool.ready for pool in pools.values())
    body = {
        "status": "ready" if is_ready else "not ready",
        "store": "reachable" if store else "unreachable",
        "models": {name: _describe(pool) for name, pool in pools.items()},
    }
    return json_response(body, 200 if is_ready else 503, None if is_ready else {"Retry-After": "1"})


def _describe(pool: PoolHealth) -> dict[str, Any]:
    described: dict[str, Any] = {"ready": pool.ready, "starting": pool.starting}
    # Others' mishaps are nobody's business once the model is served.
    if pool.down:
        described["failure"] = pool.failure
    return described
