from dataclasses import replace
from typing import Any

import pytest

from api.jobs.admission import Admission, AdmissionLimits, pool_throughput, tokens_within
from api.pool_monitor import PoolMonitor
from shared.contracts import WorkClass
from shared.errors import Overloaded
from shared.keys import pool_keys
from shared.models import ModelSpec, PoolSettings
from shared.pools.heartbeats import HeartbeatWriter, WorkerState
from shared.pools.signals import ClassLoad, PoolSignals
from tests.shared.support import MODEL

LIMITS = AdmissionLimits(max_pending_tokens=1000, max_pending_jobs=10, max_waiting=2)
NO_WORKER = PoolSignals(
    MODEL,
    ClassLoad(),
    ClassLoad(),
    0.0,
    None,
    shards=0,
    starting=0,
    ready=0,
    draining=0,
    tokens_per_second=10.0,
    start_seconds=30.0,
)


class TestThroughput:
    @pytest.mark.parametrize(
        ("ready", "starting", "most", "expected"), [(0, 0, 1, 10), (1, 0, 1, 10), (1, 1, 1, 20), (1, 0, 4, 40)]
    )
    def test_it_counts_the_workers_that_the_pool_may_have(
        self, ready: int, starting: int, most: int, expected: float
    ) -> None:
        assert pool_throughput(replace(NO_WORKER, ready=ready, starting=starting), most) == expected

    def test_it_is_unknown_before_a_measurement(self) -> None:
        assert pool_throughput(replace(NO_WORKER, tokens_per_second=None), 1) is None

    @pytest.mark.parametrize(
        ("ready", "most", "seconds", "expected"),
        [
            (1, 1, 20, 200),
            (2, 2, 20, 400),
            # The second worker comes after 30 s.
            (1, 2, 20, 200),
            (1, 2, 40, 500),
            # Only accepted work starts a worker, so its start is no reason to refuse work.
            (0, 1, 20, 200),
            (0, 3, 20, 600),
        ],
    )
    def test_further_workers_help_after_their_start(
        self, ready: int, most: int, seconds: float, expected: float
    ) -> None:
        assert tokens_within(seconds, replace(NO_WORKER, ready=ready), most) == expected

    def test_workers_with_an_unknown_start_do_not_help(self) -> None:
        assert tokens_within(20, replace(NO_WORKER, ready=1, start_seconds=None), 5) == 200


@pytest.fixture
async def pools(async_client: Any, redis_client: Any) -> PoolMonitor:
    redis_client.hset(pool_keys.measurements(MODEL), mapping={"tokens_per_second": 10, "start_seconds": 30})
    HeartbeatWriter(redis_client, MODEL, "w1").beat(WorkerState.READY)
    monitor = PoolMonitor(async_client, [ModelSpec(name=MODEL)])
    await monitor.refresh()
    return monitor


class TestPendingLimits:
    @pytest.mark.parametrize(("wait_seconds", "ahead"), [(None, 50), (3.0, 30), (600.0, 6000)])
    def test_an_interactive_job_may_wait_as_long_as_its_caller_or_its_pool_allows(
        self, pools: PoolMonitor, wait_seconds: float | None, ahead: int
    ) -> None:
        spec = ModelSpec(name=MODEL, pool=PoolSettings(max_wait_seconds=5))
        limits = Admission(pools, LIMITS).pending_limits(spec, WorkClass.INTERACTIVE, wait_seconds)
        assert (limits.tokens_ahead, limits.tokens, limits.jobs, limits.tokens_per_second) == (ahead, 1000, 10, 10)

    def test_a_batch_job_waits_for_its_turn(self, pools: PoolMonitor) -> None:
        limits = Admission(pools, LIMITS).pending_limits(ModelSpec(name=MODEL), WorkClass.BATCH, None)
        assert (limits.tokens_ahead, limits.tokens) == (None, 1000)


class TestWaitingCallers:
    def test_at_most_so_many_wait_at_once(self, pools: PoolMonitor) -> None:
        admission = Admission(pools, LIMITS)
        with admission.waiting():
            with admission.waiting(), pytest.raises(Overloaded) as raised, admission.waiting():
                pass
            assert raised.value.retry_after == 1
            with admission.waiting():
                pass


class TestStoreMemory:
    @pytest.mark.parametrize(
        ("share", "policy", "refused"),
        [(0.5, "noeviction", False), (1.04, "noeviction", True), (1.04, "allkeys-lru", False)],
    )
    async def test_an_almost_full_store_refuses_jobs(
        self, pools: PoolMonitor, redis_client: Any, share: float, policy: str, refused: bool
    ) -> None:
        before = redis_client.config_get("maxmemory*")
        used = redis_client.info("memory")["used_memory"]
        try:
            redis_client.config_set("maxmemory-policy", policy)
            redis_client.config_set("maxmemory", int(used / share))
            await pools.refresh()
        finally:
            for name in ("maxmemory", "maxmemory-policy"):
                redis_client.config_set(name, before[name])
        admission = Admission(pools, LIMITS)
        if refused:
            with pytest.raises(Overloaded) as raised:
                admission.require_memory()
            assert raised.value.retry_after == 10
        else:
            admission.require_memory()
