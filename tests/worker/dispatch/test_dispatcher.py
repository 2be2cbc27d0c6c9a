import gc
import threading
import time
from typing import Any

import pytest

from shared.contracts import WorkClass
from shared.keys import job_keys
from shared.ledger.job_ledger import JobLedger
from shared.ledger.job_record import JobFailure, JobStatus
from shared.ledger.limits import MAX_TRANSIENT_ERRORS
from shared.ledger.worker_ledger import WorkerLedger
from tests.shared.support import (
    JOB,
    MODEL,
    StoreView,
    make_lease,
    make_size,
    make_submission,
    read_message,
    read_record,
)
from tests.worker.support import (
    EngineUntilCancelled,
    ManualEngine,
    Pool,
    ScriptedEngine,
    WakeUpSender,
    add_to_order,
    in_thread,
    make_dispatcher,
    wait_briefly,
    wait_until,
)
from worker.dispatch.leases import LeaseKeeper
from worker.dispatch.result_reporter import RETRY_AFTER_SECONDS
from worker.dispatch.throughput import ThroughputMeter
from worker.engines.base import (
    BatchScores,
    Cancellation,
    EngineDied,
    EngineError,
    ScoringBatch,
    TransientEngineError,
)

INTERACTIVE, BATCH = WorkClass.INTERACTIVE, WorkClass.BATCH


class TestReporting:
    async def test_a_shard_is_scored_and_its_scores_are_stored(self, pool: Pool, store: StoreView) -> None:
        await pool.submit("nothing")
        pool.run(ScriptedEngine())
        assert await pool.scores() == [[0.0]]
        assert store.lease() is None

    async def test_finishing_a_shard_enqueues_the_next_one_and_it_is_scored_too(
        self, pool: Pool, ledger: JobLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission(shards=5, enqueued=1))
        store.drop_messages()
        make_dispatcher(pool.worker_ledger, ScriptedEngine(), linger_seconds=0.5).run(JOB, 0, INTERACTIVE)
        assert len(await pool.scores()) == 5

    async def test_an_engine_error_fails_the_job(self, pool: Pool, ledger: JobLedger) -> None:
        await pool.submit("odd")
        pool.run(ScriptedEngine(EngineError("the model returned NaN")))
        record = await read_record(ledger)
        assert record.status is JobStatus.FAILED
        assert record.failure == JobFailure("scoring_failed", "the model returned NaN")

    async def test_a_transient_engine_error_is_retried_later(self, pool: Pool, store: StoreView) -> None:
        await pool.submit("one")
        pool.run(ScriptedEngine(TransientEngineError("the engine is busy")))
        shard = store.shard()
        assert (shard["status"], shard["retries"]) == ("queued", "1")
        assert 0 < store.due_in_seconds() <= RETRY_AFTER_SECONDS
        assert store.messages() == []
        pool.run(ScriptedEngine())
        assert await pool.scores() == [[0.0]]

    async def test_a_job_fails_after_too_many_transient_errors(
        self, pool: Pool, ledger: JobLedger, store: StoreView
    ) -> None:
        await pool.submit("one")
        for _ in range(MAX_TRANSIENT_ERRORS):
            pool.run(ScriptedEngine(TransientEngineError("the engine is busy")))
        assert (await read_record(ledger)).status is JobStatus.RUNNING
        pool.run(ScriptedEngine(TransientEngineError("the engine is busy still")))
        record = await read_record(ledger)
        assert record.failure == JobFailure("scoring_failed", "the engine is busy still")
        assert len(store.dead_letters()) == 1

    async def test_a_dead_engine_releases_the_shard_without_counting_a_retry(
        self, pool: Pool, ledger: JobLedger, store: StoreView
    ) -> None:
        await pool.submit("one")
        pool.run(ScriptedEngine(EngineDied("the engine died")))
        assert (await read_record(ledger)).status is JobStatus.RUNNING
        assert not {"retries", "crashes"} & set(store.shard())
        assert [read_message(message) for message in store.messages()] == [(JOB, 0)]

    async def test_scores_of_a_lost_lease_are_discarded(self, pool: Pool, ledger: JobLedger, redis_client: Any) -> None:
        class LosesLease(ScriptedEngine):
            def score(self, batch: ScoringBatch, cancellation: Cancellation) -> BatchScores:
                redis_client.hset(job_keys.shards(JOB), "0:token", "other-token")
                return super().score(batch, cancellation)

        await pool.submit("one")
        pool.run(LosesLease())
        assert (await read_record(ledger)).status is JobStatus.RUNNING
        assert not redis_client.exists(job_keys.results(JOB))

    async def test_a_canceled_job_is_stopped_in_the_engine_and_not_requeued(
        self, pool: Pool, ledger: JobLedger, leases: LeaseKeeper, store: StoreView
    ) -> None:
        await pool.submit("one")
        engine = EngineUntilCancelled()
        dispatcher = make_dispatcher(pool.worker_ledger, engine, leases)
        with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)):
            assert engine.started.wait(10)
            await ledger.cancel(await read_record(ledger))
        assert store.messages() == []

    async def test_a_reported_shard_is_no_longer_held(self, pool: Pool) -> None:
        leases = LeaseKeeper(pool.worker_ledger)
        for outcome in (None, EngineError("no"), TransientEngineError("not now"), EngineDied("it died")):
            await pool.submit("one", job_id=f"job of {outcome}")
            make_dispatcher(pool.worker_ledger, ScriptedEngine(outcome), leases).run(
                f"job of {outcome}", 0, INTERACTIVE
            )
        assert leases.release_all() == 0

    async def test_every_claim_has_a_different_token(self, pool: Pool, redis_client: Any) -> None:
        tokens = set()
        for _ in range(3):
            await pool.submit("one")
            pool.run(ScriptedEngine())
            tokens.add(redis_client.hget(job_keys.shards(JOB), "0:token"))
            redis_client.flushall()
        assert len(tokens) == 3
        assert all(token.startswith(b"host-1:") for token in tokens)


class RecordingMeter(ThroughputMeter):
    """Records its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, int]] = []

    def shard_started(self, tokens: int) -> None:
        self.calls.append(("started", tokens))
        super().shard_started(tokens)

    def shard_ended(self, tokens: int, *, scored: bool) -> None:
        self.calls.append(("scored" if scored else "not scored", tokens))
        super().shard_ended(tokens, scored=scored)


class TestThroughput:
    @pytest.mark.parametrize(
        ("failure", "end"), [(None, "scored"), (EngineError, "not scored"), (TransientEngineError, "not scored")]
    )
    async def test_the_meter_receives_the_size_of_every_shard(
        self, pool: Pool, failure: type[Exception] | None, end: str
    ) -> None:
        engine = ScriptedEngine(failure("it cannot") if failure else None)
        await pool.submit("a", "b")
        throughput = RecordingMeter()
        make_dispatcher(pool.worker_ledger, engine, throughput=throughput).run(JOB, 0, INTERACTIVE)
        tokens = make_size(1, 0).tokens
        assert throughput.calls == [("started", tokens), (end, tokens)]
        assert throughput.held == 0


class TestSkippedShards:
    def test_a_job_that_does_not_exist_is_skipped(self, pool: Pool) -> None:
        engine = ScriptedEngine()
        pool.run(engine)
        assert engine.batches == []

    async def test_a_canceled_job_is_skipped(self, pool: Pool, ledger: JobLedger) -> None:
        await pool.submit("one")
        await ledger.cancel(await read_record(ledger))
        engine = ScriptedEngine()
        pool.run(engine)
        assert engine.batches == []

    async def test_a_shard_leased_by_another_worker_is_skipped(self, pool: Pool) -> None:
        await pool.submit("one")
        pool.worker_ledger.claim(make_lease(token="other-token"))
        engine = ScriptedEngine()
        pool.run(engine)
        assert engine.batches == []

    async def test_a_second_message_for_a_scored_shard_is_skipped(self, pool: Pool) -> None:
        await pool.submit("one", "two")
        engine = ScriptedEngine()
        pool.run(engine)
        pool.run(engine)
        assert len(engine.batches) == 1

    async def test_a_shard_named_by_several_messages_is_scored_once(self, pool: Pool, wake_ups: WakeUpSender) -> None:
        await pool.submit("one", "two")
        wake_ups.send(1, 1, 0, 1)
        engine = ScriptedEngine()
        pool.run(engine)
        assert sorted(batch.documents[0] for batch in engine.batches) == ["one", "two"]
        assert await pool.scores() == [[0.0], [0.0]]


class TestLingering:
    async def test_messages_shortly_after_the_last_shard_are_received_without_celery(
        self, pool: Pool, wake_ups: WakeUpSender
    ) -> None:
        await pool.submit("zero", "one", "two")
        engine = ScriptedEngine()
        dispatcher = make_dispatcher(pool.worker_ledger, engine, linger_seconds=0.6)
        with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)) as running:
            for shard in (1, 2):
                wait_until(lambda: len(engine.batches) == shard)  # noqa: B023
                wait_briefly(0.3)
                assert not running.done()
                wake_ups.send(shard)
        assert len(await pool.scores()) == 3

    @pytest.mark.parametrize("linger_seconds", [0.0, 0.0004, 0.2])
    def test_run_returns_to_celery_after_the_linger_time(self, pool: Pool, linger_seconds: float) -> None:
        dispatcher = make_dispatcher(pool.worker_ledger, ScriptedEngine(), linger_seconds=linger_seconds)
        started = time.monotonic()
        dispatcher.run("job-x", 0, INTERACTIVE)
        assert linger_seconds <= time.monotonic() - started < linger_seconds + 0.5

    async def test_the_batch_queue_is_not_read_without_free_batch_slots(
        self, pool: Pool, wake_ups: WakeUpSender
    ) -> None:
        await pool.submit("batch", work_class=BATCH)
        wake_ups.send(0, work_class=BATCH)
        dispatcher = make_dispatcher(
            pool.worker_ledger, ScriptedEngine(), concurrency=2, reserved=2, linger_seconds=0.2
        )
        dispatcher.run("job-x", 0, INTERACTIVE)
        assert wake_ups.waiting(BATCH) == 1

    async def test_concurrent_calls_run_one_after_the_other(self, pool: Pool, redis_client: Any) -> None:
        await pool.submit("zero", "one")
        engine = ManualEngine()
        dispatcher = make_dispatcher(pool.worker_ledger, engine)
        with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)):
            wait_until(lambda: engine.in_progress() == {"zero"})
            add_to_order(redis_client, JOB, 1, INTERACTIVE)
            with in_thread(lambda: dispatcher.run(JOB, 1, INTERACTIVE)):
                wait_briefly()
                assert engine.in_progress() == {"zero"}
                engine.finish_all()
        assert len(await pool.scores()) == 2


class TestStopping:
    async def test_a_closed_dispatcher_claims_nothing_and_reports_its_shards(
        self, pool: Pool, wake_ups: WakeUpSender
    ) -> None:
        await pool.submit("zero", "one")
        await pool.submit("two", job_id="job-2")
        engine = ManualEngine()
        dispatcher = make_dispatcher(pool.worker_ledger, engine, linger_seconds=30)
        with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)):
            wait_until(lambda: engine.in_progress() == {"zero"})
            wake_ups.send(1)
            wait_until(lambda: len(engine.in_progress()) == 2)
            dispatcher.close()
            wake_ups.send(0, job_id="job-2")
            engine.finish("zero")
            wait_until(lambda: engine.in_progress() == {"one"})
            wait_briefly()
            engine.finish_all()
        assert len(await pool.scores()) == 2
        assert wake_ups.waiting() == 1
        dispatcher.run("job-2", 0, INTERACTIVE)
        assert len(engine.batches) == 2

    def test_closing_ends_the_linger_time(self, pool: Pool) -> None:
        dispatcher = make_dispatcher(pool.worker_ledger, ScriptedEngine(), linger_seconds=30)
        with in_thread(lambda: dispatcher.run("job-x", 0, INTERACTIVE)):
            wait_briefly()
            closed_at = time.monotonic()
            dispatcher.close()
        assert time.monotonic() - closed_at < 1

    async def test_a_released_shard_is_requeued_with_a_message(
        self, pool: Pool, leases: LeaseKeeper, store: StoreView
    ) -> None:
        await pool.submit("zero")
        engine = EngineUntilCancelled()
        dispatcher = make_dispatcher(pool.worker_ledger, engine, leases)
        with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)):
            assert engine.started.wait(10)
            dispatcher.stop_waiting()
            assert leases.release_all() == 1
        assert (store.shard()["status"], store.lease()) == ("queued", None)
        assert [read_message(message) for message in store.messages()] == [(JOB, 0)]

    async def test_a_shard_claimed_during_the_stop_is_released(
        self, pool: Pool, store: StoreView, redis_client: Any
    ) -> None:
        """The other shards have been released just before."""

        class StopsDuringClaim(WorkerLedger):
            def finish_and_claim(self, *arguments: Any) -> Any:
                claimed = super().finish_and_claim(*arguments)
                dispatcher.stop_waiting()
                return claimed

        await pool.submit("zero")
        engine = ScriptedEngine()
        dispatcher = make_dispatcher(StopsDuringClaim(redis_client, MODEL), engine)
        dispatcher.run(JOB, 0, INTERACTIVE)
        assert store.shard()["status"] == "queued"
        assert engine.batches == []


async def test_there_is_at_most_one_thread_per_slot_and_threads_end_with_the_dispatcher(
    pool: Pool, wake_ups: WakeUpSender
) -> None:
    def threads() -> int:
        return sum(thread.name.startswith("shard") for thread in threading.enumerate())

    gc.collect()
    wait_until(lambda: threads() == 0)
    await pool.submit(*(f"text {number}" for number in range(20)))
    dispatcher = make_dispatcher(pool.worker_ledger, ScriptedEngine(), concurrency=3)
    for _ in range(2):
        wake_ups.send(*range(1, 20))
        dispatcher.run(JOB, 0, INTERACTIVE)
    assert 1 <= threads() <= 3
    del dispatcher
    gc.collect()
    wait_until(lambda: threads() == 0)
