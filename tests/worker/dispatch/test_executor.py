import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from shared.contracts import RerankRequest, ScoreScale, ShardScores, WorkClass
from shared.ledger.job_record import JobFailure
from shared.ledger.verdicts import Claim, ClaimVerdict
from tests.shared.support import JOB, make_lease, make_request
from tests.worker.support import PatientEngine, ScriptedEngine, in_thread
from worker.dispatch.executor import EMPTY_DOCUMENT, Executor, ShardOutcome, ShardReport
from worker.dispatch.leases import HeldShard
from worker.engines.base import (
    BACKGROUND,
    BatchScores,
    Cancellation,
    EngineDied,
    EngineError,
    ScoringAborted,
    ScoringBatch,
    ScoringEngine,
    TransientEngineError,
)
from worker.engines.lexical import LexicalEngine

INTERACTIVE, BATCH = WorkClass.INTERACTIVE, WorkClass.BATCH


class CallingBack:
    """An engine that takes batches in and calls back, around one that blocks."""

    def __init__(self, engine: ScoringEngine) -> None:
        self._engine = engine
        self._threads = ThreadPoolExecutor(4)
        self.scale = engine.scale

    def begin(self, batch: ScoringBatch, cancellation: Cancellation) -> "Future[BatchScores]":
        return self._threads.submit(self._engine.score, batch, cancellation)

    def score(self, batch: ScoringBatch, cancellation: Cancellation) -> BatchScores:
        raise AssertionError("nobody waits for an engine that calls back")

    def close(self) -> None:
        """Nothing is held."""


make_executor: Callable[[ScoringEngine], Executor] = Executor
"""How the engines of these tests work; both ways are tested."""


@pytest.fixture(autouse=True, params=["it blocks", "it calls back"])
def engine_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "it calls back":
        monkeypatch.setitem(globals(), "make_executor", lambda engine: Executor(CallingBack(engine)))


def begin(
    executor: Executor,
    request: RerankRequest | None = None,
    work_class: WorkClass = INTERACTIVE,
    held: HeldShard | None = None,
) -> "Future[Callable[[], ShardReport]]":
    """Begin one claimed shard; what makes its report comes when it has ended. A second end is an error."""
    ended: Future[Callable[[], ShardReport]] = Future()
    claim = Claim(ClaimVerdict.RUN, request or make_request("one", "two"), queue_ms=12.5)
    executor.begin(claim, held or HeldShard(make_lease()), work_class, ended.set_result)
    return ended


def attempt(
    engine: ScoringEngine,
    request: RerankRequest | None = None,
    work_class: WorkClass = INTERACTIVE,
    held: HeldShard | None = None,
) -> ShardReport:
    """What is reported of one claimed shard."""
    return begin(make_executor(engine), request, work_class, held).result(20)()


def score(engine: ScoringEngine, request: RerankRequest | None = None) -> ShardScores:
    report = attempt(engine, request)
    assert report.outcome is ShardOutcome.SCORED
    assert report.scores is not None
    return report.scores


class TestScoring:
    def test_a_shard_is_scored(self) -> None:
        scores = score(LexicalEngine(), make_request("nothing", "a query", "query of another kind"))
        assert scores.scale is ScoreScale.SIMILARITY
        assert scores.scores[:2] == [0.0, 1.0]
        assert scores.prompt_tokens > 0

    def test_the_report_says_whose_it_is(self) -> None:
        report = attempt(ScriptedEngine(), work_class=BATCH, held=HeldShard(make_lease(3, "a token")))
        assert (report.lease, report.work_class, report.failure) == (make_lease(3, "a token"), BATCH, None)

    def test_the_engine_gets_what_the_caller_asked(self) -> None:
        limits = {"max_tokens_per_query": 4, "max_tokens_per_doc": 5, "max_chunks_per_doc": 2, "overlap_tokens": 1}
        engine = ScriptedEngine()
        score(engine, make_request("one", "two", priority=3, instruction="Judge!", **limits))
        batch = ScoringBatch("a query", ["one", "two"], priority=3, instruction="Judge!", **limits)
        assert engine.batches == [batch]

    def test_batch_work_comes_after_every_interactive_pair(self) -> None:
        engine = ScriptedEngine()
        attempt(engine, make_request("one", priority=3), BATCH)
        assert [batch.priority for batch in engine.batches] == [BACKGROUND + 3]
        assert BACKGROUND > 999

    def test_an_empty_document_fails_alone_and_never_reaches_the_engine(self) -> None:
        engine = ScriptedEngine()
        scores = score(engine, make_request("", "one", " \n", "two"))
        assert [batch.documents for batch in engine.batches] == [["one", "two"]]
        assert scores.scores == [None, 0.0, None, 1.0]
        assert scores.errors == {0: EMPTY_DOCUMENT, 2: EMPTY_DOCUMENT}

    def test_without_any_text_the_engine_is_left_alone(self) -> None:
        engine = ScriptedEngine()
        scores = score(engine, make_request("", " "))
        assert engine.batches == []
        assert (scores.scores, scores.prompt_tokens) == ([None, None], 0)
        assert set(scores.errors) == {0, 1}

    def test_what_the_engine_says_of_a_place_is_said_of_its_document(self) -> None:
        answer = BatchScores(
            [0.5, None, 0.7], prompt_tokens=9, truncated=[0, 2], windows={2: (3, 8)}, errors={1: "too odd"}
        )
        scores = score(ScriptedEngine(answer), make_request("", "one", "", "two", "three"))
        assert scores.scores == [None, 0.5, None, None, 0.7]
        assert scores.truncated == [1, 4]
        assert scores.windows == {4: (3, 8)}
        assert scores.errors == {0: EMPTY_DOCUMENT, 2: EMPTY_DOCUMENT, 3: "too odd"}
        assert scores.prompt_tokens == 9

    def test_the_times_are_told(self) -> None:
        scores = score(LexicalEngine(delay_seconds=0.02))
        assert 20 <= scores.inference_ms < 20_000
        assert scores.queue_ms == 12.5


def test_the_starts_share_of_the_wait_goes_along() -> None:
    executor = Executor(ScriptedEngine(), start_ms=lambda queue_ms: queue_ms - 2.5)
    scores = begin(executor).result(20)().scores
    assert scores is not None
    assert (scores.queue_ms, scores.start_ms) == (12.5, 10.0)


class TestFailing:
    def test_what_the_engine_cannot_score_has_failed_for_its_reason(self) -> None:
        report = attempt(ScriptedEngine(EngineError("the model has lost its mind")))
        assert report.outcome is ShardOutcome.FAILED
        assert report.failure == JobFailure("scoring_failed", "the model has lost its mind")

    @pytest.mark.parametrize("answer", [ZeroDivisionError("a secret document"), BatchScores([0.5], prompt_tokens=1)])
    def test_of_a_fault_only_the_log_says_why(
        self, caplog: pytest.LogCaptureFixture, answer: BatchScores | Exception
    ) -> None:
        with caplog.at_level(logging.ERROR):
            report = attempt(ScriptedEngine(answer))
        assert report.outcome is ShardOutcome.FAILED
        assert report.failure == JobFailure("scoring_failed", "the worker failed on this job; its log has the reason")
        (logged,) = caplog.records
        assert JOB in logged.getMessage()
        assert logged.exc_info

    def test_what_the_engine_cannot_score_now_is_to_be_tried_later(self) -> None:
        report = attempt(ScriptedEngine(TransientEngineError("the engine is busy")))
        assert report.outcome is ShardOutcome.RETRY
        assert report.failure == JobFailure("scoring_failed", "the engine is busy")

    def test_an_engine_that_died_is_told_of_and_the_shard_is_for_somebody_else(self) -> None:
        executor = make_executor(ScriptedEngine(EngineDied("the engine is gone")))
        told: list[str] = []
        executor.on_engine_death = lambda: told.append("the engine died")
        report = begin(executor).result(20)()
        assert told == ["the engine died"]
        assert (report.outcome, report.failure) == (ShardOutcome.RELEASED, None)


class TestStopping:
    @pytest.mark.parametrize(("released", "outcome"), [(True, ShardOutcome.RELEASED), (False, ShardOutcome.DISCARDED)])
    def test_what_is_cancelled_in_the_engine_is_given_back_or_dropped(
        self, released: bool, outcome: ShardOutcome
    ) -> None:
        engine, held = PatientEngine(), HeldShard(make_lease())
        reports: list[ShardReport] = []
        with in_thread(lambda: reports.append(attempt(engine, held=held))):
            assert engine.begun.wait(10)
            if released:
                held.release()
            else:
                held.cancellation.cancel()
        assert [report.outcome for report in reports] == [outcome]

    def test_what_was_cancelled_before_its_turn_never_reaches_the_engine(self) -> None:
        engine, held = ScriptedEngine(), HeldShard(make_lease())
        held.release()
        assert attempt(engine, held=held).outcome is ShardOutcome.RELEASED
        assert engine.batches == []

    def test_an_engine_may_stop_a_shard_by_itself(self) -> None:
        assert attempt(ScriptedEngine(ScoringAborted())).outcome is ShardOutcome.DISCARDED


def test_many_shards_may_be_in_a_blocking_engine_at_once() -> None:
    executor = Executor(LexicalEngine(delay_seconds=0.05))
    started = time.monotonic()
    ends = [begin(executor, make_request(*["query"] * (number + 1))) for number in range(20)]
    for number, end in enumerate(ends):
        report = end.result(10)()
        assert report.scores is not None
        assert len(report.scores.scores) == number + 1
    assert time.monotonic() - started < 20 * 0.05
