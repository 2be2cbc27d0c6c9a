import asyncio
import json
import logging
import time
from typing import Any

import pytest

from api.pool_monitor import RETRY_AFTER_BUSY_SECONDS, RETRY_AFTER_UNKNOWN_SECONDS, PoolMonitor
from shared.errors import StoreUnavailable
from shared.keys import pool_keys
from shared.ledger.job_ledger import JobLedger
from shared.models import ModelSpec, PoolSettings
from shared.pools.heartbeats import FAILURE_SECONDS, HeartbeatWriter, WorkerState
from shared.store.client import connect_async
from tests.api.conftest import stop_background
from tests.shared.support import MODEL, dead_redis_url, make_submission

SPEC = ModelSpec(name=MODEL)


def specs(*names: str) -> list[ModelSpec]:
    return [ModelSpec(name=name) for name in names]


def beat(client: Any, state: WorkerState, *, model: str = MODEL, reason: str = "") -> None:
    HeartbeatWriter(client, model, f"worker-{state}").beat(state, reason)


def note(client: Any, worker: str, state: str, *, age: float = 0.0, **fields: object) -> None:
    said = {"worker": worker, "state": state, "at": time.time() - age} | fields
    client.hset(pool_keys.workers(MODEL), worker, json.dumps(said))


async def looked(client: Any, *models: ModelSpec) -> PoolMonitor:
    watch = PoolMonitor(client, models or [SPEC])
    await watch.look()
    return watch


class TestLooking:
    def test_before_the_first_look_nothing_is_known(self, async_client: Any) -> None:
        watch = PoolMonitor(async_client, [SPEC])
        assert list(watch.all()) == [MODEL]
        assert (watch.pool(MODEL).signals.ready, watch.pool(MODEL).decision.desired) == (0, 0)
        assert not watch.store_reachable

    async def test_a_look_shows_every_pool(self, async_client: Any, redis_client: Any) -> None:
        beat(redis_client, WorkerState.READY)
        beat(redis_client, WorkerState.FAILED, model="broken", reason="no weights")
        watch = await looked(async_client, *specs(MODEL, "broken", "silent"))
        assert watch.store_reachable
        assert watch.pool(MODEL).signals.ready == 1
        assert watch.pool("broken").signals.failure == "no weights"
        assert watch.pool("silent").signals.workers == ()

    async def test_what_is_outstanding_asks_for_workers_within_the_pools_own_bounds(
        self, async_client: Any, ledger: JobLedger
    ) -> None:
        always = ModelSpec(name="always", pool=PoolSettings(min=2, max=4))
        watch = await looked(async_client, SPEC, always)
        assert [pool.decision.desired for pool in watch.all().values()] == [0, 2]
        await ledger.submit(make_submission())
        assert (await watch.look())[MODEL].decision.desired == 1
        assert "2 interactive pairs" in watch.pool(MODEL).decision.reason

    async def test_it_keeps_looking(self, async_client: Any, redis_client: Any) -> None:
        watch = PoolMonitor(async_client, [SPEC])
        running = asyncio.create_task(watch.run())
        beat(redis_client, WorkerState.READY)
        for _ in range(300):
            if watch.pool(MODEL).signals.ready:
                break
            await asyncio.sleep(0.01)
        await stop_background()
        assert running.done()
        assert watch.pool(MODEL).signals.ready == 1

    async def test_without_redis_the_last_look_stands_and_is_logged_once(
        self, async_client: Any, redis_client: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        beat(redis_client, WorkerState.READY)
        watch = await looked(async_client)
        dead = connect_async(dead_redis_url())
        monkeypatch.setattr(watch, "_client", dead)
        with caplog.at_level(logging.WARNING):
            await watch.refresh()
            await watch.refresh()
            with pytest.raises(StoreUnavailable):
                await watch.look()
        await dead.aclose()
        assert not watch.store_reachable
        assert watch.pool(MODEL).signals.ready == 1
        assert len([record for record in caplog.records if "cannot be reached" in record.message]) == 1


class TestFailedStarts:
    async def test_its_reason_is_told_and_how_long_no_other_one_is_tried(
        self, async_client: Any, redis_client: Any
    ) -> None:
        for number, age in enumerate((40.0, 20.0, 1.0)):
            note(redis_client, f"w{number}", "failed", age=age, reason=f"{age} s ago")
        failed = (await looked(async_client)).start_failure(MODEL)
        assert failed is not None
        assert failed.reason == "1.0 s ago"
        # The third failure in a row is waited out for four seconds.
        assert 2 < failed.retry_in <= 3
        assert failed.retry_after == 3

    async def test_when_the_pause_is_over_another_one_may_be_tried(self, async_client: Any, redis_client: Any) -> None:
        note(redis_client, "w1", "failed", age=5, reason="no weights")
        failed = (await looked(async_client)).start_failure(MODEL)
        assert failed is not None
        assert (failed.retry_in, failed.retry_after) == (0.0, RETRY_AFTER_UNKNOWN_SECONDS)

    @pytest.mark.parametrize("state", ["starting", "ready"])
    async def test_with_a_worker_up_or_coming_it_is_past(
        self, async_client: Any, redis_client: Any, state: str
    ) -> None:
        note(redis_client, "w1", "failed", reason="no weights")
        note(redis_client, "w2", state)
        assert (await looked(async_client)).start_failure(MODEL) is None

    async def test_and_so_it_is_after_a_while(self, async_client: Any, redis_client: Any) -> None:
        note(redis_client, "w1", "failed", age=FAILURE_SECONDS + 1, reason="no weights")
        assert (await looked(async_client)).start_failure(MODEL) is None

    async def test_a_pool_that_never_failed_has_none(self, async_client: Any) -> None:
        assert (await looked(async_client)).start_failure(MODEL) is None


class TestComingBack:
    """When it is worth asking again for a job that waits."""

    async def test_where_a_worker_is_ready_soon(self, async_client: Any, redis_client: Any) -> None:
        redis_client.hset(pool_keys.measurements(MODEL), "start_seconds", 30)
        beat(redis_client, WorkerState.READY)
        assert (await looked(async_client)).retry_after(MODEL) == RETRY_AFTER_BUSY_SECONDS

    async def test_where_none_starts_yet_when_one_would_be_ready(self, async_client: Any, redis_client: Any) -> None:
        redis_client.hset(pool_keys.measurements(MODEL), "start_seconds", 20.2)
        assert (await looked(async_client)).retry_after(MODEL) == 21

    async def test_where_some_are_starting_when_the_first_of_them_will_be_ready(
        self, async_client: Any, redis_client: Any
    ) -> None:
        redis_client.hset(pool_keys.measurements(MODEL), "start_seconds", 30)
        note(redis_client, "w1", "starting", started_at=time.time() - 5)
        note(redis_client, "w2", "starting", started_at=time.time() - 20)
        assert 9 <= (await looked(async_client)).retry_after(MODEL) <= 10

    async def test_where_one_takes_longer_than_the_last_soon(self, async_client: Any, redis_client: Any) -> None:
        redis_client.hset(pool_keys.measurements(MODEL), "start_seconds", 10)
        note(redis_client, "w1", "starting", started_at=time.time() - 60)
        assert (await looked(async_client)).retry_after(MODEL) == RETRY_AFTER_BUSY_SECONDS

    async def test_where_none_was_ever_measured_after_a_while(self, async_client: Any, redis_client: Any) -> None:
        note(redis_client, "w1", "starting", started_at=time.time())
        assert (await looked(async_client)).retry_after(MODEL) == RETRY_AFTER_UNKNOWN_SECONDS
