"""`GET /v1/pools`, for operators and KEDA."""

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from api.app import create_app
from api.settings import ApiSettings
from shared.contracts import WorkClass
from shared.keys import pool_keys
from shared.ledger.job_ledger import JobLedger
from shared.ledger.worker_ledger import WorkerLedger
from shared.models import ModelRegistry, ModelSpec, PoolSettings
from shared.pools.heartbeats import HeartbeatWriter, WorkerState
from tests.api.support import http
from tests.shared.support import MODEL, make_lease, make_request, make_scores, make_submission

NONE = {"jobs": 0, "pairs": 0, "tokens": 0}
SPECS = [
    ModelSpec(name=MODEL, aliases=["org/alias"]),
    ModelSpec(name="always", pool=PoolSettings(min=2, max=2)),
]


@pytest.fixture
async def client(redis_url: str, redis_client: Any) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(ApiSettings(redis_url=redis_url), ModelRegistry(SPECS))
    async with app.router.lifespan_context(app), http(app) as client:
        yield client


async def read(client: httpx.AsyncClient, name: str = MODEL) -> dict[str, Any]:
    response = await client.get(f"/v1/pools/{name}")
    assert response.status_code == 200, response.text
    pool: dict[str, Any] = response.json()
    return pool


async def test_idle_pool(client: httpx.AsyncClient) -> None:
    assert await read(client) == {
        "id": MODEL,
        "object": "pool",
        "desired": 0,
        "reason": "no work is outstanding: no worker is needed",
        "retry_at": None,
        "oldest_seconds": 0.0,
        "idle_seconds": None,
        "shards": 0,
        "backlog": NONE | {"interactive": NONE, "batch": NONE},
        "in_flight": NONE | {"interactive": NONE, "batch": NONE},
        "workers": {"starting": 0, "ready": 0, "draining": 0, "busy": 0},
        "tokens_per_second": None,
        "start_seconds": None,
        "failures": 0,
        "failure": None,
        "failed_at": None,
        "problem": None,
    }


async def test_working_pool(client: httpx.AsyncClient, ledger: JobLedger, redis_client: Any) -> None:
    await ledger.submit(make_submission("job-1", request=make_request("a", "b", "c"), shards=2))
    await ledger.submit(make_submission("job-2", work_class=WorkClass.BATCH))
    WorkerLedger(redis_client, MODEL).claim(make_lease(0))
    writer = HeartbeatWriter(redis_client, MODEL, "w1", started_at=time.time() - 9)
    writer.beat(WorkerState.READY, held=1, tokens_per_second=1234.56789)
    HeartbeatWriter(redis_client, MODEL, "w2").beat(WorkerState.DRAINING)

    pool = await read(client)
    assert pool["backlog"] == {
        "jobs": 1,
        "pairs": 3,
        "tokens": 31,
        "interactive": {"jobs": 0, "pairs": 1, "tokens": 11},
        "batch": {"jobs": 1, "pairs": 2, "tokens": 20},
    }
    assert pool["in_flight"] == {"jobs": 1, "pairs": 2, "tokens": 20} | {
        "interactive": {"jobs": 1, "pairs": 2, "tokens": 20},
        "batch": NONE,
    }
    assert (pool["shards"], pool["desired"]) == (3, 1)
    assert pool["workers"] == {"starting": 0, "ready": 1, "draining": 1, "busy": 1}
    assert pool["tokens_per_second"] == 1234.568
    assert 9 <= pool["start_seconds"] < 15


async def test_response_has_the_current_state(client: httpx.AsyncClient, ledger: JobLedger, redis_client: Any) -> None:
    """A scaler must not act on a cached response."""
    for number in range(5):
        await ledger.submit(make_submission(f"job-{number}"))
        assert (await read(client))["backlog"]["jobs"] == 1
        worker = WorkerLedger(redis_client, MODEL)
        worker.claim(make_lease(job_id=f"job-{number}"))
        assert (await read(client))["in_flight"]["jobs"] == 1
        worker.finish(make_lease(job_id=f"job-{number}"), make_scores(), WorkClass.INTERACTIVE)
        pool = await read(client)
        assert (pool["backlog"]["jobs"], pool["in_flight"]["jobs"], pool["shards"]) == (0, 0, 0)


async def test_pool_with_failed_starts(client: httpx.AsyncClient, redis_client: Any) -> None:
    for number, age in enumerate((3.0, 0.5)):
        beat = {"worker": f"w{number}", "state": "failed", "at": time.time() - age, "reason": "no weights"}
        redis_client.hset(pool_keys.workers("always"), f"w{number}", json.dumps(beat))
    pool = await read(client, "always")
    assert (pool["desired"], pool["failures"], pool["failure"]) == (0, 2, "no weights")
    assert pool["reason"] == "2 starts in a row failed (no weights): next try in 2 s"
    assert pool["retry_at"] == pytest.approx(time.time() + 1.5, abs=1)
    assert pool["failed_at"] == pytest.approx(time.time() - 0.5, abs=1)


async def test_pools_are_listed_in_the_order_of_the_models(client: httpx.AsyncClient) -> None:
    body = (await client.get("/v1/pools")).json()
    assert body["object"] == "list"
    assert [(pool["id"], pool["desired"]) for pool in body["data"]] == [(MODEL, 0), ("always", 2)]


async def test_alias_with_a_slash_returns_the_pool_of_its_model(client: httpx.AsyncClient) -> None:
    assert (await read(client, "org/alias"))["id"] == MODEL


async def test_unknown_model_is_404(client: httpx.AsyncClient) -> None:
    response = await client.get("/v1/pools/nope")
    assert (response.status_code, response.json()["error"]["type"]) == (404, "model_not_found")
