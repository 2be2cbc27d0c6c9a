"""For operators and load balancers: alive, ready. The only routes that never need a key."""

from typing import Any

from fastapi import APIRouter, Response

from api.dependencies import PartsDep
from api.exchange import json_response
from shared.heartbeats import PoolHealth

router = APIRouter(tags=["operations"])


@router.get("/health")
async def health() -> Response:
    """200 as long as the process answers."""
    return json_response({"status": "ok"})


@router.get("/ready")
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
