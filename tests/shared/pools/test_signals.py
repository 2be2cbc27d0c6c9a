"""What is read of a pool, against what the ledger, its workers and time have done to it."""

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
FAILURE = JobFailure("scoring_failed", "the engine gave up")


def look(client: Any, now: float | None = None) -> PoolSignals:
    return read_signals_blocking(client, [MODEL], time.time() if now is None else now)[MODEL]


def note(client: Any, worker: str, state: str, *, age: float = 0.0, **fields: object) -> None:
    beat = {"worker": worker, "state": state, "at": time.time() - age} | fields
    client.hset(pool_keys.workers(MODEL), worker, json.dumps(beat))


class TestNothingThere:
    async def test_a_pool_nobody_has_asked_for_is_known_of_nothing(self, redis_client: Any) -> None:
        assert look(redis_client) == PoolSignals(
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

    def test_a_redis_that_is_away_is_an_error(self) -> None:
        with connect(dead_redis_url()) as away, pytest.raises(redis.ConnectionError):
            look(away)


class TestReading:
    async def test_all_pools_are_one_round_trip(self, redis_client: Any, async_client: redis.asyncio.Redis) -> None:
        models = [f"model-{number}" for number in range(5)]
        await read_signals(async_client, models, 0.0)
        before = redis_client.info("stats")["total_reads_processed"]
        await read_signals(async_client, models, 0.0)
        # The second INFO is the one other read; a long pipeline may come in two.
        assert redis_client.info("stats")["total_reads_processed"] - before <= 3

    async def test_blocking_or_not_it_is_the_same(
        self, redis_client: Any, async_client: redis.asyncio.Redis, ledger: JobLedger
    ) -> None:
        await ledger.submit(make_submission(shards=2))
        note(redis_client, "w1", "ready", held=1)
        (waited,) = (await read_signals(async_client, [MODEL], time.time())).values()
        blocking = look(redis_client)
        assert (waited.interactive, waited.shards, waited.workers) == (
            blocking.interactive,
            blocking.shards,
            blocking.workers,
        )


class TestLoad:
    """What happens to it step by step; whatever may happen else is in test_ledger_properties."""

    async def test_it_waits_is_in_work_and_is_done(
        self, ledger: JobLedger, worker: WorkerLedger, redis_client: Any
    ) -> None:
        await ledger.submit(make_submission(shards=2, request=make_request("a", "b", "c")))
        assert look(redis_client).interactive == ClassLoad(jobs=1, queued_pairs=3, queued_tokens=31)
        assert worker.claim(make_lease(0)).tokens == 20
        assert look(redis_client).interactive == ClassLoad(
            jobs=1, queued_pairs=1, queued_tokens=11, running_pairs=2, running_tokens=20, running_jobs=1
        )
        worker.finish(make_lease(0), make_scores(), WorkClass.INTERACTIVE)
        assert look(redis_client).interactive == ClassLoad(jobs=1, queued_pairs=1, queued_tokens=11, running_jobs=1)
        worker.claim(make_lease(1))
        worker.finish(make_lease(1), make_scores(0.5), WorkClass.INTERACTIVE)
        assert look(redis_client).interactive == NOTHING

    async def test_each_class_has_its_own(self, ledger: JobLedger, redis_client: Any) -> None:
        await ledger.submit(make_submission("job-1"))
        await ledger.submit(make_submission("job-2", work_class=WorkClass.BATCH, shards=4, rung=1))
        signals = look(redis_client)
        assert signals.interactive == ClassLoad(jobs=1, queued_pairs=2, queued_tokens=20)
        assert signals.batch == ClassLoad(jobs=1, queued_pairs=4, queued_tokens=46)
        assert signals.shards == 5

    async def test_of_a_worker_that_died_it_is_queued_again(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView, redis_client: Any
    ) -> None:
        await ledger.submit(make_submission())
        worker.claim(make_lease())
        store.end_lease()
        await ledger.reconcile(MODEL)
        assert look(redis_client).interactive == ClassLoad(jobs=1, queued_pairs=2, queued_tokens=20, running_jobs=1)

    async def test_what_needs_no_worker_is_none(self, ledger: JobLedger, redis_client: Any) -> None:
        request = make_request("a", "b")
        rest = KnownScores(dict.fromkeys(range(2), PairScore(0.5, ScoreScale.SIMILARITY)))
        await ledger.submit(make_submission(request=request, rest=rest, shards=0))
        signals = look(redis_client)
        assert (signals.interactive, signals.idle_seconds) == (NOTHING, None)

    async def test_of_a_job_that_was_lost_it_is_forgotten_with_the_last_one_outstanding(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView, redis_client: Any
    ) -> None:
        await ledger.submit(make_submission("job-1"))
        await ledger.submit(make_submission("job-2"))
        redis_client.delete(job_keys.job("job-1"), job_keys.shards("job-1"))
        worker.claim(make_lease(job_id="job-2"))
        worker.finish(make_lease(job_id="job-2"), make_scores(), WorkClass.INTERACTIVE)
        assert look(redis_client).interactive.queued_pairs == 2
        store.make_due(job_id="job-1")
        await ledger.reconcile(MODEL)
        assert (look(redis_client).shards, look(redis_client).interactive.queued_pairs) == (0, 0)
        assert look(redis_client).idle_seconds is not None
        store.pass_deadline("job-1")
        await ledger.expire(MODEL)
        assert look(redis_client).interactive == NOTHING

    async def test_what_was_accepted_before_there_were_sizes_is_outstanding_all_the_same(
        self, ledger: JobLedger, worker: WorkerLedger, redis_client: Any
    ) -> None:
        await ledger.submit(make_submission())
        redis_client.hdel(job_keys.shards("job-1"), "0:pairs", "0:tokens")
        redis_client.delete(pool_keys.load(MODEL))
        assert worker.claim(make_lease()).tokens == 0
        signals = look(redis_client)
        assert (signals.shards, signals.interactive) == (1, ClassLoad(jobs=1, running_jobs=1))
        worker.fail(make_lease(), FAILURE)
        assert look(redis_client).interactive == NOTHING


class TestTimes:
    """A minute passes where somebody says so."""

    @pytest.fixture
    def pass_a_minute(self, redis_client: Any) -> Callable[[], None]:
        def passes() -> None:
            for work_class in WorkClass:
                for job_id in redis_client.zrange(pool_keys.open_jobs(MODEL, work_class), 0, -1):
                    redis_client.zincrby(pool_keys.open_jobs(MODEL, work_class), -60_000, job_id)
            redis_client.hincrby(pool_keys.load(MODEL), "ended_ms", -60_000)

        return passes

    async def test_the_oldest_job_of_any_class_tells_the_age(
        self, ledger: JobLedger, redis_client: Any, pass_a_minute: Callable[[], None]
    ) -> None:
        await ledger.submit(make_submission("job-1", work_class=WorkClass.BATCH))
        pass_a_minute()
        await ledger.submit(make_submission("job-2"))
        assert 60 <= look(redis_client).oldest_seconds < 90
        await ledger.cancel(await read_record(ledger, "job-1"))
        assert look(redis_client).oldest_seconds < 30

    async def test_the_age_is_by_redis_clock_whatever_ours_says(self, ledger: JobLedger, redis_client: Any) -> None:
        await ledger.submit(make_submission())
        assert look(redis_client, now=time.time() + 3600).oldest_seconds < 30

    async def test_a_job_that_is_tried_again_is_as_old_as_the_try(
        self, ledger: JobLedger, worker: WorkerLedger, redis_client: Any, pass_a_minute: Callable[[], None]
    ) -> None:
        await ledger.submit(make_submission())
        pass_a_minute()
        worker.claim(make_lease())
        worker.fail(make_lease(), FAILURE)
        await ledger.retry_failed(await read_record(ledger), 60)
        assert look(redis_client).oldest_seconds < 30

    async def test_it_is_idle_since_a_job_last_came_or_ended(
        self, ledger: JobLedger, worker: WorkerLedger, redis_client: Any, pass_a_minute: Callable[[], None]
    ) -> None:
        def idle_minutes() -> int:
            seconds = look(redis_client).idle_seconds
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
    def test_they_are_counted_by_where_they_stand(self, redis_client: Any) -> None:
        for number, state in enumerate(("starting", "ready", "ready", "draining", "failed")):
            note(redis_client, f"w{number}", state)
        signals = look(redis_client)
        assert (signals.starting, signals.ready, signals.draining) == (1, 2, 1)
        assert {beat.worker for beat in signals.workers} == {"w0", "w1", "w2", "w3"}

    def test_a_silent_one_is_gone(self, redis_client: Any) -> None:
        note(redis_client, "w1", "ready", age=STALE_SECONDS + 1, held=3)
        signals = look(redis_client)
        assert (signals.ready, signals.busy_workers, signals.workers) == (0, frozenset(), ())

    def test_those_with_something_in_hand_are_busy(self, redis_client: Any) -> None:
        note(redis_client, "w1", "ready", held=3)
        note(redis_client, "w2", "ready", held=0)
        note(redis_client, "w3", "draining", held=1)
        assert look(redis_client).busy_workers == {"w1", "w3"}

    def test_failures_are_counted_until_a_worker_is_ready(self, redis_client: Any) -> None:
        for number, age in enumerate((500, 5, 50)):
            note(redis_client, f"w{number}", "failed", age=age, reason=f"{age} s ago")
        signals = look(redis_client)
        assert (signals.failures, signals.failure) == (3, "5 s ago")
        assert signals.failed_at == pytest.approx(time.time() - 5, abs=2)
        writer = HeartbeatWriter(redis_client, MODEL, "w9")
        writer.beat(WorkerState.READY)
        writer.forget_others()
        assert (look(redis_client).failures, look(redis_client).failure) == (0, None)

    def test_starts_that_failed_side_by_side_are_one_try(self, redis_client: Any) -> None:
        now = time.time()
        for number, (began, ended) in enumerate(((100, 90), (99, 80), (98, 85), (70, 60), (65, 50))):
            note(redis_client, f"w{number}", "failed", age=ended, started_at=now - began)
        assert look(redis_client).failures == 2


class TestMeasured:
    def test_the_rate_is_the_mean_of_those_who_know_theirs(self, redis_client: Any) -> None:
        note(redis_client, "w1", "ready", tokens_per_second=100.0)
        note(redis_client, "w2", "draining", tokens_per_second=300.0)
        note(redis_client, "w3", "ready")
        assert look(redis_client).tokens_per_second == 200.0

    def test_rate_and_start_outlive_the_last_worker(self, redis_client: Any) -> None:
        writer = HeartbeatWriter(redis_client, MODEL, "w1", started_at=time.time() - 7)
        writer.beat(WorkerState.STARTING)
        writer.beat(WorkerState.READY, tokens_per_second=123.4)
        writer.leave()
        signals = look(redis_client)
        assert signals.workers == ()
        assert signals.tokens_per_second == 123.4
        assert signals.start_seconds == pytest.approx(7, abs=1)
        assert 29 * 86_400 < redis_client.ttl(pool_keys.measurements(MODEL)) <= 30 * 86_400

    @pytest.mark.parametrize("nonsense", ["", "x", "nan", "inf", b"\xff"])
    def test_what_is_no_number_was_not_measured(self, redis_client: Any, nonsense: str | bytes) -> None:
        redis_client.hset(
            pool_keys.measurements(MODEL), mapping={"tokens_per_second": nonsense, "start_seconds": nonsense}
        )
        redis_client.hset(pool_keys.load(MODEL), mapping={"batch:tokens": nonsense, "ended_ms": nonsense})
        signals = look(redis_client)
        assert (signals.tokens_per_second, signals.start_seconds, signals.idle_seconds) == (None, None, None)
        assert signals.batch.queued_tokens == 0
