"""The signals of a pool after changes by the ledger, by its workers and by time."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
import redis.asyncio

from shared.contracts import ScoreScale, WorkClass
from shared.keys import job_keys, pool_keys
from shared.ledger.job_ledger import JobLedger
from shared.ledger.job_record import JobFailure
from shared.ledger.worker_ledger import WorkerLedger
from shared.partial_results import KnownScores, PairScore
from shared.pools.heartbeats import STALE_SECONDS, HeartbeatWriter, WorkerState
from shared.pools.signals import ClassLoad, PoolSignals, read_signals, read_signals_blocking
from shared.store.client import connect
from tests.shared.support import (
    MODEL,
    StoreView,
    dead_redis_url,
    make_lease,
    make_request,
    make_scores,
    make_submission,
    read_record,
)

NOTHING = ClassLoad()
FAILURE = JobFailure("scoring_failed", "the engine failed")


def read_pool(client: Any, now: float | None = None) -> PoolSignals:
    return read_signals_blocking(client, [MODEL], time.time() if now is None else now)[MODEL]


def write_heartbeat(client: Any, worker: str, state: str, *, age: float = 0.0, **fields: object) -> None:
    beat = {"worker": worker, "state": state, "at": time.time() - age} | fields
    client.hset(pool_keys.workers(MODEL), worker, json.dumps(beat))


class TestEmptyPool:
    async def test_pool_without_keys_has_empty_signals(self, redis_client: Any) -> None:
        assert read_pool(redis_client) == PoolSignals(
            model=MODEL,
            interactive=NOTHING,
            batch=NOTHING,
            oldest_seconds=0.0,
            idle_seconds=None,
            shards=0,
            starting=0,
            ready=0,
            draining=0,
        )

    def test_unreachable_redis_raises(self) -> None:
        with connect(dead_redis_url()) as unreachable, pytest.raises(redis.ConnectionError):
            read_pool(unreachable)


class TestReading:
    async def test_all_pools_are_read_in_one_round_trip(
        self, redis_client: Any, async_client: redis.asyncio.Redis
    ) -> None:
        models = [f"model-{number}" for number in range(5)]
        await read_signals(async_client, models, 0.0)
        before = redis_client.info("stats")["total_reads_processed"]
        await read_signals(async_client, models, 0.0)
        # The second INFO is one read; Redis may read a long pipeline in two parts.
        assert redis_client.info("stats")["total_reads_processed"] - before <= 3

    async def test_blocking_and_asynchronous_reads_return_the_same(
        self, redis_client: Any, async_client: redis.asyncio.Redis, ledger: JobLedger
    ) -> None:
        await ledger.submit(make_submission(shards=2))
        write_heartbeat(redis_client, "w1", "ready", held=1)
        (waited,) = (await read_signals(async_client, [MODEL], time.time())).values()
        blocking = read_pool(redis_client)
        assert (waited.interactive, waited.shards, waited.workers) == (
            blocking.interactive,
            blocking.shards,
            blocking.workers,
        )


class TestLoad:
    """The load after single steps; test_ledger_properties covers arbitrary sequences."""

    async def test_load_follows_submit_claim_and_finish(
        self, ledger: JobLedger, worker: WorkerLedger, redis_client: Any
    ) -> None:
        await ledger.submit(make_submission(shards=2, request=make_request("a", "b", "c")))
        assert read_pool(redis_client).interactive == ClassLoad(jobs=1, queued_pairs=3, queued_tokens=31)
        assert worker.claim(make_lease(0)).tokens == 20
        assert read_pool(redis_client).interactive == ClassLoad(
            jobs=1, queued_pairs=1, queued_tokens=11, running_pairs=2, running_tokens=20, running_jobs=1
        )
        worker.finish(make_lease(0), make_scores(), WorkClass.INTERACTIVE)
        assert read_pool(redis_client).interactive == ClassLoad(
            jobs=1, queued_pairs=1, queued_tokens=11, running_jobs=1
        )
        worker.claim(make_lease(1))
        worker.finish(make_lease(1), make_scores(0.5), WorkClass.INTERACTIVE)
        assert read_pool(redis_client).interactive == NOTHING

    async def test_classes_are_counted_separately(self, ledger: JobLedger, redis_client: Any) -> None:
        await ledger.submit(make_submission("job-1"))
        await ledger.submit(make_submission("job-2", work_class=WorkClass.BATCH, shards=4, enqueued=1))
        signals = read_pool(redis_client)
        assert signals.interactive == ClassLoad(jobs=1, queued_pairs=2, queued_tokens=20)
        assert signals.batch == ClassLoad(jobs=1, queued_pairs=4, queued_tokens=46)
        assert signals.shards == 5

    async def test_shard_of_a_dead_worker_counts_as_queued(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView, redis_client: Any
    ) -> None:
        await ledger.submit(make_submission())
        worker.claim(make_lease())
        store.end_lease()
        await ledger.reconcile(MODEL)
        assert read_pool(redis_client).interactive == ClassLoad(
            jobs=1, queued_pairs=2, queued_tokens=20, running_jobs=1
        )

    async def test_job_without_shards_is_no_load(self, ledger: JobLedger, redis_client: Any) -> None:
        request = make_request("a", "b")
        rest = KnownScores(dict.fromkeys(range(2), PairScore(0.5, ScoreScale.SIMILARITY)))
        await ledger.submit(make_submission(request=request, known_scores=rest, shards=0))
        signals = read_pool(redis_client)
        assert (signals.interactive, signals.idle_seconds) == (NOTHING, None)

    async def test_load_of_a_lost_job_is_cleared_with_the_last_outstanding_shard(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView, redis_client: Any
    ) -> None:
        await ledger.submit(make_submission("job-1"))
        await ledger.submit(make_submission("job-2"))
        redis_client.delete(job_keys.job("job-1"), job_keys.shards("job-1"))
        worker.claim(make_lease(job_id="job-2"))
        worker.finish(make_lease(job_id="job-2"), make_scores(), WorkClass.INTERACTIVE)
        assert read_pool(redis_client).interactive.queued_pairs == 2
        store.make_due(job_id="job-1")
        await ledger.reconcile(MODEL)
        assert (read_pool(redis_client).shards, read_pool(redis_client).interactive.queued_pairs) == (0, 0)
        assert read_pool(redis_client).idle_seconds is not None
        store.pass_deadline("job-1")
        await ledger.expire(MODEL)
        assert read_pool(redis_client).interactive == NOTHING

    async def test_shard_without_a_stored_size_is_outstanding_but_has_no_load(
        self, ledger: JobLedger, worker: WorkerLedger, redis_client: Any
    ) -> None:
        await ledger.submit(make_submission())
        redis_client.hdel(job_keys.shards("job-1"), "0:pairs", "0:tokens")
        redis_client.delete(pool_keys.load(MODEL))
        assert worker.claim(make_lease()).tokens == 0
        signals = read_pool(redis_client)
        assert (signals.shards, signals.interactive) == (1, ClassLoad(jobs=1, running_jobs=1))
        worker.fail(make_lease(), FAILURE)
        assert read_pool(redis_client).interactive == NOTHING


class TestTimes:
    """The fixture moves the stored timestamps back by a minute."""

    @pytest.fixture
    def pass_a_minute(self, redis_client: Any) -> Callable[[], None]:
        def move_timestamps() -> None:
            for work_class in WorkClass:
                for job_id in redis_client.zrange(pool_keys.open_jobs(MODEL, work_class), 0, -1):
                    redis_client.zincrby(pool_keys.open_jobs(MODEL, work_class), -60_000, job_id)
            redis_client.hincrby(pool_keys.load(MODEL), "ended_ms", -60_000)

        return move_timestamps

    async def test_age_is_that_of_the_oldest_job_of_any_class(
        self, ledger: JobLedger, redis_client: Any, pass_a_minute: Callable[[], None]
    ) -> None:
        await ledger.submit(make_submission("job-1", work_class=WorkClass.BATCH))
        pass_a_minute()
        await ledger.submit(make_submission("job-2"))
        assert 60 <= read_pool(redis_client).oldest_seconds < 90
        await ledger.cancel(await read_record(ledger, "job-1"))
        assert read_pool(redis_client).oldest_seconds < 30

    async def test_age_is_computed_with_the_clock_of_redis(self, ledger: JobLedger, redis_client: Any) -> None:
        await ledger.submit(make_submission())
        assert read_pool(redis_client, now=time.time() + 3600).oldest_seconds < 30

    async def test_age_of_a_retried_job_counts_from_the_retry(
        self, ledger: JobLedger, worker: WorkerLedger, redis_client: Any, pass_a_minute: Callable[[], None]
    ) -> None:
        await ledger.submit(make_submission())
        pass_a_minute()
        worker.claim(make_lease())
        worker.fail(make_lease(), FAILURE)
        await ledger.retry_failed(await read_record(ledger), 60)
        assert read_pool(redis_client).oldest_seconds < 30

    async def test_idle_time_counts_from_the_last_submitted_or_ended_job(
        self, ledger: JobLedger, worker: WorkerLedger, redis_client: Any, pass_a_minute: Callable[[], None]
    ) -> None:
        def idle_minutes() -> int:
            seconds = read_pool(redis_client).idle_seconds
            assert seconds is not None
            return int(seconds // 60)

        await ledger.submit(make_submission())
        assert idle_minutes() == 0
        pass_a_minute()
        worker.claim(make_lease())
        assert idle_minutes() == 1
        worker.finish(make_lease(), make_scores(), WorkClass.INTERACTIVE)
        assert idle_minutes() == 0
        pass_a_minute()
        assert idle_minutes() == 1


class TestWorkers:
    def test_workers_are_counted_by_state(self, redis_client: Any) -> None:
        for number, state in enumerate(("starting", "ready", "ready", "draining", "failed")):
            write_heartbeat(redis_client, f"w{number}", state)
        signals = read_pool(redis_client)
        assert (signals.starting, signals.ready, signals.draining) == (1, 2, 1)
        assert {beat.worker for beat in signals.workers} == {"w0", "w1", "w2", "w3"}

    def test_worker_with_a_stale_heartbeat_is_not_counted(self, redis_client: Any) -> None:
        write_heartbeat(redis_client, "w1", "ready", age=STALE_SECONDS + 1, held=3)
        signals = read_pool(redis_client)
        assert (signals.ready, signals.busy_workers, signals.workers) == (0, frozenset(), ())

    def test_workers_that_hold_shards_are_busy(self, redis_client: Any) -> None:
        write_heartbeat(redis_client, "w1", "ready", held=3)
        write_heartbeat(redis_client, "w2", "ready", held=0)
        write_heartbeat(redis_client, "w3", "draining", held=1)
        assert read_pool(redis_client).busy_workers == {"w1", "w3"}

    def test_failures_are_counted_until_a_worker_is_ready(self, redis_client: Any) -> None:
        for number, age in enumerate((500, 5, 50)):
            write_heartbeat(redis_client, f"w{number}", "failed", age=age, reason=f"{age} s ago")
        signals = read_pool(redis_client)
        assert (signals.failures, signals.failure) == (3, "5 s ago")
        assert signals.failed_at == pytest.approx(time.time() - 5, abs=2)
        writer = HeartbeatWriter(redis_client, MODEL, "w9")
        writer.beat(WorkerState.READY)
        writer.remove_stale()
        assert (read_pool(redis_client).failures, read_pool(redis_client).failure) == (0, None)

    def test_overlapping_failed_starts_count_as_one(self, redis_client: Any) -> None:
        now = time.time()
        for number, (started, failed) in enumerate(((100, 90), (99, 80), (98, 85), (70, 60), (65, 50))):
            write_heartbeat(redis_client, f"w{number}", "failed", age=failed, started_at=now - started)
        assert read_pool(redis_client).failures == 2


class TestMeasurements:
    def test_throughput_is_the_mean_of_the_workers_that_measured_it(self, redis_client: Any) -> None:
        write_heartbeat(redis_client, "w1", "ready", tokens_per_second=100.0)
        write_heartbeat(redis_client, "w2", "draining", tokens_per_second=300.0)
        write_heartbeat(redis_client, "w3", "ready")
        assert read_pool(redis_client).tokens_per_second == 200.0

    def test_measurements_remain_after_the_last_worker(self, redis_client: Any) -> None:
        writer = HeartbeatWriter(redis_client, MODEL, "w1", started_at=time.time() - 7)
        writer.beat(WorkerState.STARTING)
        writer.beat(WorkerState.READY, tokens_per_second=123.4)
        writer.leave()
        signals = read_pool(redis_client)
        assert signals.workers == ()
        assert signals.tokens_per_second == 123.4
        assert signals.start_seconds == pytest.approx(7, abs=1)
        assert 29 * 86_400 < redis_client.ttl(pool_keys.measurements(MODEL)) <= 30 * 86_400

    def test_precision_is_that_of_most_loaded_workers(self, redis_client: Any) -> None:
        write_heartbeat(redis_client, "w1", "starting")
        assert read_pool(redis_client).dtype is None
        for number, dtype in enumerate(("float32", "bfloat16", "bfloat16", "float32", "bfloat16")):
            write_heartbeat(redis_client, f"w{number + 2}", "ready", dtype=dtype)
        assert read_pool(redis_client).dtype == "bfloat16"

    def test_precision_of_two_equal_halves_of_a_pool_is_always_the_same(self, redis_client: Any) -> None:
        write_heartbeat(redis_client, "w1", "ready", dtype="float32")
        write_heartbeat(redis_client, "w2", "ready", dtype="bfloat16")
        assert read_pool(redis_client).dtype == "bfloat16"

    def test_precision_remains_after_the_last_worker_until_another_engine_runs(self, redis_client: Any) -> None:
        writer = HeartbeatWriter(redis_client, MODEL, "w1")
        writer.beat(WorkerState.READY, dtype="bfloat16")
        writer.leave()
        assert read_pool(redis_client).dtype == "bfloat16"
        writer.beat(WorkerState.READY, dtype=None)
        assert read_pool(redis_client).dtype is None
        writer.leave()
        assert read_pool(redis_client).dtype is None

    @pytest.mark.parametrize("damaged", ["", "x", "nan", "inf", b"\xff"])
    def test_field_that_is_not_a_number_counts_as_missing(self, redis_client: Any, damaged: str | bytes) -> None:
        redis_client.hset(
            pool_keys.measurements(MODEL), mapping={"tokens_per_second": damaged, "start_seconds": damaged}
        )
        redis_client.hset(pool_keys.load(MODEL), mapping={"batch:tokens": damaged, "ended_ms": damaged})
        signals = read_pool(redis_client)
        assert (signals.tokens_per_second, signals.start_seconds, signals.idle_seconds) == (None, None, None)
        assert signals.batch.queued_tokens == 0
