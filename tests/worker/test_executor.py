import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import worker.executor
from shared import keys
from shared.contracts import RerankRequest, ScoreScale, ShardScores, WorkClass
from shared.errors import StoreUnavailable
from shared.jobs import JobFailure, JobRecord, JobState
from shared.ledger import Ledger
from shared.redis_client import connect
from shared.worker_ledger import TRANSIENT_ERRORS_ALLOWED, FinishVerdict, ShardLease, WorkerLedger
from tests.shared.support import (
    JOB,
    MODEL,
    StoreView,
    dead_redis_url,
    make_lease,
    make_request,
    make_submission,
    read_doorbell,
)
from tests.worker.support import PatientEngine, ToldEngine, in_thread, make_executor, wait_until
from worker.engines.base import (
    BatchScores,
    Cancellation,
    EngineDied,
    EngineError,
    ScoringBatch,
    ScoringEngine,
    TransientEngineError,
)
from worker.engines.lexical import LexicalEngine
from worker.executor import BATCH_PRIORITY_OFFSET, EMPTY_DOCUMENT, RETRY_AFTER_SECONDS, Executor
from worker.leases import Leases

INTERACTIVE, BATCH = WorkClass.INTERACTIVE, WorkClass.BATCH


class Bench:
    """One job through an executor, on the real ledger."""

    def __init__(self, ledger: Ledger, client: Any) -> None:
        self._ledger = ledger
        self._client = client
        self.worker_ledger = WorkerLedger(client, MODEL)

    async def submit(self, request: RerankRequest | None = None, *, shards: int = 1) -> None:
        await self._ledger.submit(make_submission(request=request, shards=shards))

    def run(self, engine: ScoringEngine, work_class: WorkClass = INTERACTIVE, *, shard: int = 0) -> None:
        make_executor(self._client, engine).run(JOB, shard, work_class)

    async def record(self) -> JobRecord:
        record = await self._ledger.read(JOB)
        assert record is not None
        return record

    async def scores(self) -> ShardScores:
        record, shards = await self._ledger.read_finished(JOB)
        assert record is not None
        assert record.state is JobState.SUCCEEDED
        return shards[0]

    async def cancel(self) -> None:
        await self._ledger.cancel(await self.record())


@pytest.fixture
def bench(ledger: Ledger, redis_client: Any) -> Bench:
    return Bench(ledger, redis_client)


class TestScoring:
    async def test_a_shard_is_scored_and_handed_in(self, bench: Bench) -> None:
        await bench.submit(make_request("nothing", "a query", "query of another kind"))
        bench.run(LexicalEngine())
        scores = await bench.scores()
        assert scores.scale is ScoreScale.SIMILARITY
        assert scores.scores[0] == 0.0
        assert scores.scores[1] == 1.0
        assert scores.prompt_tokens > 0

    async def test_the_engine_gets_what_the_caller_asked(self, bench: Bench) -> None:
        await bench.submit(make_request("one", "two", max_tokens_per_doc=5, priority=3))
        engine = ToldEngine()
        bench.run(engine)
        assert engine.batches == [ScoringBatch("a query", ["one", "two"], max_tokens_per_doc=5, priority=3)]

    async def test_batch_work_comes_after_every_interactive_pair(self, bench: Bench) -> None:
        await bench.submit(make_request("one", priority=3))
        engine = ToldEngine()
        bench.run(engine, BATCH)
        assert [batch.priority for batch in engine.batches] == [BATCH_PRIORITY_OFFSET + 3]
        assert BATCH_PRIORITY_OFFSET > 999

    async def test_an_empty_document_fails_alone_and_never_reaches_the_engine(self, bench: Bench) -> None:
        await bench.submit(make_request("", "one", " \n", "two"))
        engine = ToldEngine()
        bench.run(engine)
        assert [batch.documents for batch in engine.batches] == [["one", "two"]]
        scores = await bench.scores()
        assert scores.scores == [None, 0.0, None, 1.0]
        assert scores.errors == {0: EMPTY_DOCUMENT, 2: EMPTY_DOCUMENT}

    async def test_without_any_text_the_engine_is_left_alone(self, bench: Bench) -> None:
        await bench.submit(make_request("", " "))
        engine = ToldEngine()
        bench.run(engine)
        assert engine.batches == []
        scores = await bench.scores()
        assert (scores.scores, scores.prompt_tokens) == ([None, None], 0)
        assert set(scores.errors) == {0, 1}

    async def test_what_the_engine_says_of_a_place_is_said_of_its_document(self, bench: Bench) -> None:
        await bench.submit(make_request("", "one", "", "two", "three"))
        answer = BatchScores([0.5, None, 0.7], prompt_tokens=9, truncated=[0, 2], errors={1: "too odd"})
        bench.run(ToldEngine(answer))
        scores = await bench.scores()
        assert scores.scores == [None, 0.5, None, None, 0.7]
        assert scores.truncated == [1, 4]
        assert scores.errors == {0: EMPTY_DOCUMENT, 2: EMPTY_DOCUMENT, 3: "too odd"}
        assert scores.prompt_tokens == 9

    async def test_the_times_are_measured(self, bench: Bench) -> None:
        await bench.submit()
        bench.run(LexicalEngine(delay_seconds=0.02))
        scores = await bench.scores()
        assert 20 <= scores.inference_ms < 20_000
        assert 0 <= scores.queue_ms < 20_000


class TestFailing:
    async def test_what_the_engine_cannot_score_fails_the_job_with_its_reason(self, bench: Bench) -> None:
        await bench.submit()
        bench.run(ToldEngine(EngineError("the model has lost its mind")))
        record = await bench.record()
        assert record.state is JobState.FAILED
        assert record.failure == JobFailure("scoring_failed", "the model has lost its mind")

    @pytest.mark.parametrize("answer", [ZeroDivisionError("a secret document"), BatchScores([0.5], prompt_tokens=1)])
    async def test_a_fault_fails_the_job_and_only_the_log_says_why(
        self, bench: Bench, caplog: pytest.LogCaptureFixture, answer: BatchScores | Exception
    ) -> None:
        await bench.submit(make_request("one", "two"))
        with caplog.at_level(logging.ERROR):
            bench.run(ToldEngine(answer))
        record = await bench.record()
        assert record.state is JobState.FAILED
        assert record.failure == JobFailure("scoring_failed", "the worker failed on this job; its log says why")
        (logged,) = caplog.records
        assert JOB in logged.getMessage()
        assert logged.exc_info

    def test_without_redis_it_raises(self) -> None:
        with connect(dead_redis_url()) as client:
            executor = make_executor(client, ToldEngine())
            with pytest.raises(StoreUnavailable):
                executor.run(JOB, 0, INTERACTIVE)


class TestStopping:
    async def test_a_shard_that_is_taken_from_this_worker_is_given_back_and_rung_for(
        self, bench: Bench, leases: Leases, ringing_worker: WorkerLedger, store: StoreView
    ) -> None:
        await bench.submit()
        store.take_doorbells()
        engine = PatientEngine()
        executor = Executor(ringing_worker, engine, leases, "host-1")
        with in_thread(lambda: executor.run(JOB, 0, INTERACTIVE)):
            assert engine.begun.wait(10)
            assert leases.give_back_all() == 1
        assert (store.shard()["state"], store.lease()) == ("queued", None)
        assert [read_doorbell(message) for message in store.doorbells()] == [(JOB, 0)]
        assert (await bench.record()).state is JobState.RUNNING

    async def test_a_job_that_is_canceled_is_not_scored_to_its_end(
        self, bench: Bench, leases: Leases, ringing_worker: WorkerLedger, store: StoreView
    ) -> None:
        await bench.submit()
        store.take_doorbells()
        engine = PatientEngine()
        executor = Executor(ringing_worker, engine, leases, "host-1")
        with in_thread(lambda: executor.run(JOB, 0, INTERACTIVE)):
            assert engine.begun.wait(10)
            await bench.cancel()
        assert (await bench.record()).state is JobState.CANCELED
        assert store.doorbells() == []

    async def test_a_shard_that_was_lost_meanwhile_is_left_to_its_new_owner(
        self, bench: Bench, leases: Leases, ringing_worker: WorkerLedger, store: StoreView, redis_client: Any
    ) -> None:
        await bench.submit()
        engine = PatientEngine()
        executor = Executor(ringing_worker, engine, leases, "host-1")
        with in_thread(lambda: executor.run(JOB, 0, INTERACTIVE)):
            assert engine.begun.wait(10)
            redis_client.hset(keys.shards(JOB), "0:token", "somebody else")
        assert store.shard()["state"] == "leased"

    async def test_what_was_cancelled_before_its_turn_never_reaches_the_engine(
        self, bench: Bench, leases: Leases, ringing_worker: WorkerLedger, store: StoreView, redis_client: Any
    ) -> None:
        """Two shards that must run alone: the second one waits for the first."""
        await bench.submit(shards=2)
        redis_client.hset(keys.shards(JOB), mapping={"0:alone": 1, "1:alone": 1})
        engine = PatientEngine()
        executor = Executor(ringing_worker, engine, leases, "host-1")
        with in_thread(lambda: executor.run(JOB, 0, INTERACTIVE)):
            assert engine.begun.wait(10)
            with in_thread(lambda: executor.run(JOB, 1, INTERACTIVE)):
                wait_until(lambda: store.lease(1) is not None)
                engine.begun.clear()
                wait_until(lambda: len(leases._held) == 2)
                leases.give_back_all()
        assert not engine.begun.is_set()
        assert [store.shard(shard)["state"] for shard in (0, 1)] == ["queued", "queued"]

    async def test_a_worker_that_leaves_takes_nothing_more(self, bench: Bench, redis_client: Any) -> None:
        await bench.submit()
        engine = ToldEngine()
        executor = make_executor(redis_client, engine)
        executor.leave()
        executor.run(JOB, 0, INTERACTIVE)
        assert engine.batches == []
        assert (await bench.record()).state is JobState.QUEUED


class TestTryingAgain:
    async def test_what_the_engine_cannot_score_now_is_tried_again_later(self, bench: Bench, store: StoreView) -> None:
        await bench.submit()
        store.take_doorbells()
        bench.run(ToldEngine(TransientEngineError("the engine is busy")))
        shard = store.shard()
        assert (shard["state"], shard["retries"]) == ("queued", "1")
        assert 0 < store.due_in_seconds() <= RETRY_AFTER_SECONDS
        assert store.doorbells() == []
        bench.run(LexicalEngine())
        await bench.scores()

    async def test_but_not_for_ever(self, bench: Bench, store: StoreView) -> None:
        await bench.submit()
        for _ in range(TRANSIENT_ERRORS_ALLOWED):
            bench.run(ToldEngine(TransientEngineError("the engine is busy")))
        assert (await bench.record()).state is JobState.RUNNING
        bench.run(ToldEngine(TransientEngineError("the engine is busy still")))
        record = await bench.record()
        assert record.failure == JobFailure("scoring_failed", "the engine is busy still")
        assert len(store.dead()) == 1

    async def test_an_engine_that_died_costs_the_worker_and_not_the_job(
        self, bench: Bench, ringing_worker: WorkerLedger, store: StoreView
    ) -> None:
        await bench.submit()
        store.take_doorbells()
        executor = Executor(ringing_worker, ToldEngine(EngineDied("the engine is gone")), Leases(ringing_worker), "h")
        told: list[str] = []
        executor.on_engine_death = lambda: told.append("the engine died")
        executor.run(JOB, 0, INTERACTIVE)
        assert told == ["the engine died"]
        assert (await bench.record()).state is JobState.RUNNING
        assert not {"retries", "crashes"} & set(store.shard())
        assert [read_doorbell(message) for message in store.doorbells()] == [(JOB, 0)]


class AwayForAWhile(WorkerLedger):
    """Claims; then Redis is away for so many calls."""

    def __init__(self, client: Any, calls: int) -> None:
        super().__init__(client, MODEL)
        self.calls = calls

    def finish(self, lease: ShardLease, scores: ShardScores, work_class: WorkClass) -> FinishVerdict:
        if self.calls:
            self.calls -= 1
            raise StoreUnavailable("away")
        return super().finish(lease, scores, work_class)


class TestAStoreThatIsAway:
    async def test_scores_are_handed_in_when_it_is_back(
        self, bench: Bench, redis_client: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(worker.executor, "_STORE_RETRY_SECONDS", (0.001, 0.002))
        await bench.submit()
        away = AwayForAWhile(redis_client, 20)
        Executor(away, LexicalEngine(), Leases(away), "host-1").run(JOB, 0, INTERACTIVE)
        await bench.scores()

    async def test_a_worker_that_leaves_does_not_wait_for_it(self, bench: Bench, redis_client: Any) -> None:
        """Its lease runs out, and somebody else scores the shard."""
        await bench.submit()
        away = AwayForAWhile(redis_client, 10**9)
        executor = Executor(away, LexicalEngine(), Leases(away), "host-1")
        with in_thread(lambda: executor.run(JOB, 0, INTERACTIVE)) as running:
            wait_until(lambda: away.calls < 10**9)
            assert not running.done()
            executor.leave()
        assert (await bench.record()).state is JobState.RUNNING


async def test_a_shard_that_may_bring_the_worker_down_is_scored_without_company(
    bench: Bench, redis_client: Any
) -> None:
    class Crowd(ToldEngine):
        def __init__(self) -> None:
            super().__init__()
            self.lock = threading.Lock()
            self.inside = 0
            self.seen: list[tuple[str, int]] = []

        def score(self, batch: ScoringBatch, cancellation: Cancellation) -> BatchScores:
            with self.lock:
                self.inside += 1
            time.sleep(0.03)
            with self.lock:
                self.seen.append((batch.documents[0], self.inside))
            time.sleep(0.03)
            with self.lock:
                self.inside -= 1
            return super().score(batch, cancellation)

    await bench.submit(make_request("zero", "one", "the suspect", "three"), shards=4)
    redis_client.hset(keys.shards(JOB), "2:alone", 1)
    engine = Crowd()
    executor = make_executor(redis_client, engine)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda shard: executor.run(JOB, shard, INTERACTIVE), range(4)))
    assert dict(engine.seen)["the suspect"] == 1
    await bench.scores()


class TestNothingToDo:
    def test_a_job_that_is_gone(self, bench: Bench) -> None:
        engine = ToldEngine()
        bench.run(engine)
        assert engine.batches == []

    async def test_a_job_that_was_canceled(self, bench: Bench) -> None:
        await bench.submit()
        await bench.cancel()
        engine = ToldEngine()
        bench.run(engine)
        assert engine.batches == []

    async def test_a_shard_that_somebody_else_is_scoring(self, bench: Bench) -> None:
        await bench.submit()
        bench.worker_ledger.claim(make_lease(token="somebody else"))
        engine = ToldEngine()
        bench.run(engine)
        assert engine.batches == []

    async def test_a_second_doorbell_for_a_scored_shard(self, bench: Bench) -> None:
        await bench.submit(shards=2)
        engine = ToldEngine()
        bench.run(engine)
        bench.run(engine)
        assert len(engine.batches) == 1


async def test_scores_that_come_too_late_are_dropped(bench: Bench, redis_client: Any) -> None:
    class SlowToNotice(ToldEngine):
        def score(self, batch: ScoringBatch, cancellation: Cancellation) -> BatchScores:
            redis_client.hset(keys.shards(JOB), "0:token", "somebody else")
            return super().score(batch, cancellation)

    await bench.submit()
    bench.run(SlowToNotice())
    assert (await bench.record()).state is JobState.RUNNING
    assert not redis_client.exists(keys.results(JOB))


async def test_every_claim_has_a_token_of_its_own(bench: Bench, redis_client: Any) -> None:
    tokens = set()
    for _ in range(3):
        await bench.submit()
        bench.run(ToldEngine())
        tokens.add(redis_client.hget(keys.shards(JOB), "0:token"))
        redis_client.flushall()
    assert len(tokens) == 3
    assert all(token.startswith(b"host-1:") for token in tokens)


async def test_many_threads_may_run_one_executor(ledger: Ledger, redis_client: Any) -> None:
    jobs = [f"job-{number}" for number in range(40)]
    for job_id in jobs:
        await ledger.submit(make_submission(job_id))
    executor = make_executor(redis_client, LexicalEngine())
    started = time.monotonic()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda job_id: executor.run(job_id, 0, INTERACTIVE), jobs * 2))
    assert time.monotonic() - started < 30
    assert set((await ledger.states(jobs)).values()) == {JobState.SUCCEEDED}
    assert {redis_client.hget(keys.shards(job_id), "0:accepted") for job_id in jobs} == {b"1"}
