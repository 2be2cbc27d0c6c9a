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
from tests.api.conftest import cancel_other_tasks
from tests.shared.support import MODEL, dead_redis_url, make_submission

SPEC = ModelSpec(name=MODEL)


def specs(*names: str) -> list[ModelSpec]:
    return [ModelSpec(name=name) for name in names]


def beat(client: Any, state: WorkerState, *, model: str = MODEL, reason: str = "") -> None:
    HeartbeatWriter(client, model, f"worker-{state}").beat(state, reason)


def write_heartbeat(client: Any, worker: str, state: str, *, age: float = 0.0, **fields: object) -> None:
    heartbeat = {"worker": worker, "state": state, "at": time.time() - age} | fields
    client.hset(pool_keys.workers(MODEL), worker, json.dumps(heartbeat))


async def fetched_monitor(client: Any, *models: ModelSpec) -> PoolMonitor:
    monitor = PoolMonitor(client, models or [SPEC])
    await monitor.fetch()
    return monitor


class TestFetching:
    def test_new_monitor_has_empty_snapshots(self, async_client: Any) -> None:
        monitor = PoolMonitor(async_client, [SPEC])
        assert list(monitor.all()) == [MODEL]
        assert (monitor.pool(MODEL).signals.ready, monitor.pool(MODEL).decision.desired) == (0, 0)
        assert not monitor.store_reachable

    async def test_fetch_updates_every_pool(self, async_client: Any, redis_client: Any) -> None:
        beat(redis_client, WorkerState.READY)
        beat(redis_client, WorkerState.FAILED, model="broken", reason="no weights")
        monitor = await fetched_monitor(async_client, *specs(MODEL, "broken", "silent"))
        assert monitor.store_reachable
        assert monitor.pool(MODEL).signals.ready == 1
        assert monitor.pool("broken").signals.failure == "no weights"
        assert monitor.pool("silent").signals.workers == ()

    async def test_outstanding_work_needs_workers_within_the_pools_bounds(
        self, async_client: Any, ledger: JobLedger
    ) -> None:
        always = ModelSpec(name="always", pool=PoolSettings(min=2, max=4))
        monitor = await fetched_monitor(async_client, SPEC, always)
        assert [pool.decision.desired for pool in monitor.all().values()] == [0, 2]
        await ledger.submit(make_submission())
        assert (await monitor.fetch())[MODEL].decision.desired == 1
        assert "2 interactive pairs" in monitor.pool(MODEL).decision.reason

    async def test_run_refreshes_until_cancelled(self, async_client: Any, redis_client: Any) -> None:
        monitor = PoolMonitor(async_client, [SPEC])
        running = asyncio.create_task(monitor.run())
        beat(redis_client, WorkerState.READY)
        for _ in range(300):
            if monitor.pool(MODEL).signals.ready:
                break
            await asyncio.sleep(0.01)
        await cancel_other_tasks()
        assert running.done()
        assert monitor.pool(MODEL).signals.ready == 1

    async def test_unreachable_redis_keeps_the_snapshots_and_is_logged_once(
        self, async_client: Any, redis_client: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        beat(redis_client, WorkerState.READY)
        monitor = await fetched_monitor(async_client)
        dead = connect_async(dead_redis_url())
        monkeypatch.setattr(monitor, "_client", dead)
        with caplog.at_level(logging.WARNING):
            await monitor.refresh()
            await monitor.refresh()
            with pytest.raises(StoreUnavailable):
                await monitor.fetch()
        await dead.aclose()
        assert not monitor.store_reachable
        assert monitor.pool(MODEL).signals.ready == 1
        assert len([record for record in caplog.records if "is unreachable" in record.message]) == 1


class TestFailedStarts:
    async def test_failure_has_the_reason_and_the_time_until_the_next_start(
        self, async_client: Any, redis_client: Any
    ) -> None:
        for number, age in enumerate((40.0, 20.0, 1.0)):
            write_heartbeat(redis_client, f"w{number}", "failed", age=age, reason=f"{age} s ago")
        failed = (await fetched_monitor(async_client)).start_failure(MODEL)
        assert failed is not None
        assert failed.reason == "1.0 s ago"
        # The pause after the third failure in a row is four seconds.
        assert 2 < failed.retry_in <= 3
        assert failed.retry_after == 3

    async def test_start_may_be_tried_again_after_the_pause(self, async_client: Any, redis_client: Any) -> None:
        write_heartbeat(redis_client, "w1", "failed", age=5, reason="no weights")
        failed = (await fetched_monitor(async_client)).start_failure(MODEL)
        assert failed is not None
        assert (failed.retry_in, failed.retry_after) == (0.0, RETRY_AFTER_UNKNOWN_SECONDS)

    @pytest.mark.parametrize("state", ["starting", "ready"])
    async def test_failure_is_ignored_while_a_worker_is_ready_or_starting(
        self, async_client: Any, redis_client: Any, state: str
    ) -> None:
        write_heartbeat(redis_client, "w1", "failed", reason="no weights")
        write_heartbeat(redis_client, "w2", state)
        assert (await fetched_monitor(async_client)).start_failure(MODEL) is None

    async def test_old_failure_is_ignored(self, async_client: Any, redis_client: Any) -> None:
        write_heartbeat(redis_client, "w1", "failed", age=FAILURE_SECONDS + 1, reason="no weights")
        assert (await fetched_monitor(async_client)).start_failure(MODEL) is None

    async def test_pool_without_failures_has_no_start_failure(self, async_client: Any) -> None:
        assert (await fetched_monitor(async_client)).start_failure(MODEL) is None


class TestRetryAfter:
    async def test_short_while_a_worker_is_ready(self, async_client: Any, redis_client: Any) -> None:
        redis_client.hset(pool_keys.measurements(MODEL), "start_seconds", 30)
        beat(redis_client, WorkerState.READY)
        assert (await fetched_monitor(async_client)).retry_after(MODEL) == RETRY_AFTER_BUSY_SECONDS

    async def test_full_start_time_when_no_worker_starts(self, async_client: Any, redis_client: Any) -> None:
        redis_client.hset(pool_keys.measurements(MODEL), "start_seconds", 20.2)
        assert (await fetched_monitor(async_client)).retry_after(MODEL) == 21

    async def test_remaining_start_time_of_the_first_starting_worker(
        self, async_client: Any, redis_client: Any
    ) -> None:
        redis_client.hset(pool_keys.measurements(MODEL), "start_seconds", 30)
        write_heartbeat(redis_client, "w1", "starting", started_at=time.time() - 5)
        write_heartbeat(redis_client, "w2", "starting", started_at=time.time() - 20)
        assert 9 <= (await fetched_monitor(async_client)).retry_after(MODEL) <= 10

    async def test_short_when_a_start_takes_longer_than_measured(self, async_client: Any, redis_client: Any) -> None:
        redis_client.hset(pool_keys.measurements(MODEL), "start_seconds", 10)
        write_heartbeat(redis_client, "w1", "starting", started_at=time.time() - 60)
        assert (await fetched_monitor(async_client)).retry_after(MODEL) == RETRY_AFTER_BUSY_SECONDS

    async def test_default_when_no_start_was_measured(self, async_client: Any, redis_client: Any) -> None:
        write_heartbeat(redis_client, "w1", "starting", started_at=time.time())
        assert (await fetched_monitor(async_client)).retry_after(MODEL) == RETRY_AFTER_UNKNOWN_SECONDS
