import logging
import time
from typing import Any

import pytest

from shared import keys
from shared.contracts import RerankRequest, ScoreScale, ShardScores, WorkClass
from shared.errors import StoreUnavailable
from shared.jobs import JobFailure, JobRecord, JobState
from shared.ledger import Ledger
from shared.redis_client import connect
from shared.worker_ledger import WorkerLedger
from tests.shared.support import MODEL, dead_redis_url, make_lease, make_request, make_submission
from tests.worker.support import ToldEngine, make_executor
from worker.engines.base import BatchScores, Cancellation, EngineError, ScoringBatch, ScoringEngine
from worker.engines.lexical import LexicalEngine
from worker.executor import BATCH_PRIORITY_OFFSET, EMPTY_DOCUMENT

JOB = "job-1"
INTERACTIVE, BATCH = WorkClass.INTERACTIVE, WorkClass.BATCH


class Bench:
    """One job through an executor, on the real ledger."""

    def __init__(self, ledger: Ledger, client: Any) -> None:
        self._ledger = ledger
        self._client = client
        self.worker_ledger = WorkerLedger(client, MODEL)

    async def submit(self, request: RerankRequest | None = None, *, shards: int = 1) -> None:
        await self._ledger.submit(make_submission(request=request, shards=shards))

    def run(self, engine: ScoringEngine, work_class: WorkClass = INTERACTIVE) -> None:
        make_executor(self._client, engine).run(JOB, 0, work_class)

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
    from concurrent.futures import ThreadPoolExecutor

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
