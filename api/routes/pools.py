"""Routes of the pools: backlog, work in progress, workers, and how many workers there should be."""

from typing import Any

from fastapi import APIRouter, Response

from api.dependencies import AdminDep, AppState, AppStateDep
from api.http.responses import json_response
from api.openapi.schemas import EXAMPLE_POOL, Pools, response_doc
from api.openapi.schemas import Pool as PoolBody
from api.pool_monitor import PoolSnapshot
from api.pool_problems import problem_of
from shared.contracts import WorkClass
from shared.pools.signals import PoolSignals

router = APIRouter(prefix="/v1/pools", tags=["pools"])

_LIST_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: response_doc(Pools, {"object": "list", "data": [EXAMPLE_POOL]}, "The pools.")
}
_POOL_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: response_doc(PoolBody, EXAMPLE_POOL, "The pool."),
    404: {"description": "The model is not served."},
}


@router.get("", responses=_LIST_RESPONSES)
async def list_pools(state: AppStateDep, _: AdminDep) -> Response:
    """The current state of every model's pool."""
    pools = await state.pools.fetch()
    return json_response({"object": "list", "data": [_describe(state, pool) for pool in pools.values()]})


@router.get("/{name:path}", responses=_POOL_RESPONSES)
async def read_pool(name: str, state: AppStateDep, _: AdminDep) -> Response:
    """One model's pool, by the model's name or an alias."""
    model = state.service.models.resolve(name).name
    return json_response(_describe(state, (await state.pools.fetch())[model]))


def _describe(state: AppState, pool: PoolSnapshot) -> dict[str, Any]:
    return describe(pool) | {"problem": problem_of(pool, state.pools.start_failure(pool.signals.model))}


def describe(pool: PoolSnapshot) -> dict[str, Any]:
    """One pool. Null means never measured or never happened. `desired` is a plain number, for autoscalers."""
    signals, decision = pool.signals, pool.decision
    return {
        "id": signals.model,
        "object": "pool",
        "desired": decision.desired,
        "reason": decision.reason,
        "retry_at": decision.retry_at,
        "oldest_seconds": round(signals.oldest_seconds, 3),
        "idle_seconds": _rounded(signals.idle_seconds),
        "shards": signals.shards,
        "backlog": _by_class(signals, "queued"),
        "in_flight": _by_class(signals, "running"),
        "workers": {
            "starting": signals.starting,
            "ready": signals.ready,
            "draining": signals.draining,
            "busy": len(signals.busy_workers),
        },
        "tokens_per_second": _rounded(signals.tokens_per_second),
        "start_seconds": _rounded(signals.start_seconds),
        "failures": signals.failures,
        "failure": signals.failure,
        "failed_at": _rounded(signals.failed_at),
    }


def _by_class(signals: PoolSignals, state: str) -> dict[str, Any]:
    """The queued or running load: the sums, and each class of work."""
    loads = {WorkClass.INTERACTIVE: signals.interactive, WorkClass.BATCH: signals.batch}
    parts = {
        str(work_class): {what: getattr(load, f"{state}_{what}") for what in ("jobs", "pairs", "tokens")}
        for work_class, load in loads.items()
    }
    sums = {what: sum(part[what] for part in parts.values()) for what in ("jobs", "pairs", "tokens")}
    return sums | parts


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
