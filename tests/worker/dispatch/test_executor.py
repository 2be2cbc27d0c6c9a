import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from shared.contracts import NumberedDocument, RerankRequest, ScoreScale, ShardScores, Truncation, WorkClass
from shared.ledger.job_record import JobFailure
from shared.ledger.verdicts import Claim, ClaimVerdict
from tests.logs import LogLines
from tests.shared.support import JOB, make_lease, make_request
from tests.worker.support import EngineUntilCancelled, ScriptedEngine, in_thread
from worker.dispatch.executor import EMPTY_DOCUMENT, Executor, ShardOutcome, ShardReport
from worker.dispatch.leases import HeldShard
from worker.engines.base import (
    BACKGROUND,
    BatchScores,
    Cancellation,
    EngineDied,
    EngineError,
    LimitRefused,
    ScoringAborted,
    ScoringBatch,
    ScoringEngine,
    TextOverLimit,
    TransientEngineError,
)
from worker.engines.lexical import LexicalEngine

INTERACTIVE, BATCH = WorkClass.INTERACTIVE, WorkClass.BATCH


class CallbackEngine:
    """Gives a blocking engine the interface of one that calls back."""

    def __init__(self, engine: ScoringEngine) -> None:
        self._engine = engine
        self._threads = ThreadPoolExecutor(4)
        self.scale = engine.scale
        self.dtype = engine.dtype

    def begin(self, batch: ScoringBatch, cancellation: Cancellation) -> "Future[BatchScores]":
        return self._threads.submit(self._engine.score, batch, cancellation)

    def score(self, batch: ScoringBatch, cancellation: Cancellation) -> BatchScores:
        raise AssertionError("the executor must call begin instead")

    def close(self) -> None:
        pass


make_executor: Callable[[ScoringEngine], Executor] = Executor
"""Replaced by `engine_style`, so that every test runs with a blocking engine and with callbacks."""


@pytest.fixture(autouse=True, params=["blocking", "callback"])
def engine_style(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "callback":
        monkeypatch.setitem(globals(), "make_executor", lambda engine: Executor(CallbackEngine(engine)))


def begin(
    executor: Executor,
    request: RerankRequest | None = None,
    work_class: WorkClass = INTERACTIVE,
    held: HeldShard | None = None,
) -> "Future[Callable[[], ShardReport]]":
    """Begin one claimed shard. The future has the function that creates its report; a second end raises."""
    end: Future[Callable[[], ShardReport]] = Future()
    claim = Claim(ClaimVerdict.RUN, request or make_request("one", "two"), queue_ms=12.5)
    executor.begin(claim, held or HeldShard(make_lease()), work_class, end.set_result)
    return end


def report_of(
    engine: ScoringEngine,
    request: RerankRequest | None = None,
    work_class: WorkClass = INTERACTIVE,
    held: HeldShard | None = None,
) -> ShardReport:
    """Score one claimed shard and return its report."""
    return begin(make_executor(engine), request, work_class, held).result(20)()


def score(engine: ScoringEngine, request: RerankRequest | None = None) -> ShardScores:
    report = report_of(engine, request)
    assert report.outcome is ShardOutcome.SCORED
    assert report.scores is not None
    return report.scores


class TestScoring:
    def test_a_shard_is_scored(self) -> None:
        scores = score(LexicalEngine(), make_request("nothing", "a query", "query of another kind"))
        assert scores.scale is ScoreScale.SIMILARITY
        assert scores.scores[:2] == [0.0, 1.0]
        assert scores.prompt_tokens > 0

    def test_the_report_names_its_lease_and_class(self) -> None:
        report = report_of(ScriptedEngine(), work_class=BATCH, held=HeldShard(make_lease(3, "a token")))
        assert (report.lease, report.work_class, report.failure) == (make_lease(3, "a token"), BATCH, None)

    def test_the_engine_receives_the_options_of_the_request(self) -> None:
        limits: dict[str, Any] = {
            **{"max_tokens_per_query": 4, "max_tokens_per_doc": 5, "max_chunks_per_doc": 2, "overlap_tokens": 1},
            **{"max_prompt_tokens": 9, "truncation": Truncation.START},
        }
        engine = ScriptedEngine()
        score(engine, make_request("one", "two", priority=3, instruction="Judge!", **limits))
        batch = ScoringBatch("a query", ["one", "two"], priority=3, instruction="Judge!", **limits)
        assert engine.batches == [batch]

    def test_batch_work_has_a_lower_priority_than_all_interactive_work(self) -> None:
        engine = ScriptedEngine()
        report_of(engine, make_request("one", priority=3), BATCH)
        assert [batch.priority for batch in engine.batches] == [BACKGROUND + 3]
        assert BACKGROUND > 999

    def test_an_empty_document_gets_an_error_and_is_not_scored(self) -> None:
        engine = ScriptedEngine()
        scores = score(engine, make_request("", "one", " \n", "two"))
        assert [batch.documents for batch in engine.batches] == [["one", "two"]]
        assert scores.scores == [None, 0.0, None, 1.0]
        assert scores.errors == {0: EMPTY_DOCUMENT, 2: EMPTY_DOCUMENT}

    def test_the_engine_is_not_called_without_any_text(self) -> None:
        engine = ScriptedEngine()
        scores = score(engine, make_request("", " "))
        assert engine.batches == []
        assert (scores.scores, scores.prompt_tokens) == ([None, None], 0)
        assert set(scores.errors) == {0, 1}

    def test_results_are_mapped_from_batch_positions_to_document_positions(self) -> None:
        answer = BatchScores(
            [0.5, None, 0.7], prompt_tokens=9, truncated=[0, 2], windows={2: (3, 8)}, errors={1: "too long"}
        )
        scores = score(ScriptedEngine(answer), make_request("", "one", "", "two", "three"))
        assert scores.scores == [None, 0.5, None, None, 0.7]
        assert scores.truncated == [1, 4]
        assert scores.windows == {4: (3, 8)}
        assert scores.errors == {0: EMPTY_DOCUMENT, 2: EMPTY_DOCUMENT, 3: "too long"}
        assert scores.prompt_tokens == 9

    def test_the_scores_have_inference_and_queue_times(self) -> None:
        scores = score(LexicalEngine(delay_seconds=0.02))
        assert 20 <= scores.inference_ms < 20_000
        assert scores.queue_ms == 12.5


def test_the_scores_have_the_part_of_the_queue_time_spent_on_a_start() -> None:
    executor = Executor(ScriptedEngine(), start_ms=lambda queue_ms: queue_ms - 2.5)
    scores = begin(executor).result(20)().scores
    assert scores is not None
    assert (scores.queue_ms, scores.start_ms) == (12.5, 10.0)


class TestFailing:
    def test_an_engine_error_fails_the_shard_with_its_reason(self) -> None:
        report = report_of(ScriptedEngine(EngineError("the model returned NaN")))
        assert report.outcome is ShardOutcome.FAILED
        assert report.failure == JobFailure("scoring_failed", "the model returned NaN")

    @pytest.mark.parametrize(("text", "field"), [(1, "documents[9]"), ("query", "query"), ("documents", "documents")])
    def test_a_text_that_is_too_long_fails_the_job_and_is_named_by_its_place_in_the_request(
        self, text: int | str, field: str
    ) -> None:
        # An engine gets no empty documents.
        documents = [NumberedDocument(text=text, position=position) for position, text in ((4, "a"), (7, ""), (9, "b"))]
        request = make_request().model_copy(update={"documents": documents, "truncation": Truncation.NONE})
        report = report_of(ScriptedEngine(TextOverLimit(text, 600, 512, "with special tokens")), request)
        assert report.outcome is ShardOutcome.FAILED
        message = f"{field}: 600 tokens with special tokens, but the limit is 512, and the request forbids truncation"
        assert report.failure == JobFailure("text_too_long", message, field, 600, 512)

    def test_a_limit_that_does_not_fit_the_model_is_an_invalid_request(self) -> None:
        report = report_of(ScriptedEngine(LimitRefused("overlap_tokens is too high", param="overlap_tokens")))
        assert report.outcome is ShardOutcome.FAILED
        assert report.failure == JobFailure("invalid_request", "overlap_tokens is too high", "overlap_tokens")

    @pytest.mark.parametrize("answer", [ZeroDivisionError("a secret document"), BatchScores([0.5], prompt_tokens=1)])
    def test_an_unexpected_error_is_logged_but_not_reported_in_detail(
        self, logged: LogLines, answer: BatchScores | Exception
    ) -> None:
        report = report_of(ScriptedEngine(answer))
        assert report.outcome is ShardOutcome.FAILED
        assert report.failure == JobFailure("scoring_failed", "the worker failed on this job; its log has the reason")
        (line,) = logged.of("worker.dispatch.executor")
        assert line["job"] == JOB
        assert "executor.py" in line["exception"]
        assert "a secret document" not in str(line)

    def test_a_transient_engine_error_is_reported_for_a_retry(self) -> None:
        report = report_of(ScriptedEngine(TransientEngineError("the engine is busy")))
        assert report.outcome is ShardOutcome.RETRY
        assert report.failure == JobFailure("scoring_failed", "the engine is busy")

    def test_a_dead_engine_calls_the_handler_and_releases_the_shard(self) -> None:
        executor = make_executor(ScriptedEngine(EngineDied("the engine died")))
        calls: list[str] = []
        executor.on_engine_death = lambda: calls.append("the engine died")
        report = begin(executor).result(20)()
        assert calls == ["the engine died"]
        assert (report.outcome, report.failure) == (ShardOutcome.RELEASED, None)


class TestStopping:
    @pytest.mark.parametrize(("released", "outcome"), [(True, ShardOutcome.RELEASED), (False, ShardOutcome.DISCARDED)])
    def test_a_cancelled_shard_is_released_or_discarded(self, released: bool, outcome: ShardOutcome) -> None:
        engine, held = EngineUntilCancelled(), HeldShard(make_lease())
        reports: list[ShardReport] = []
        with in_thread(lambda: reports.append(report_of(engine, held=held))):
            assert engine.started.wait(10)
            if released:
                held.release()
            else:
                held.cancellation.cancel()
        assert [report.outcome for report in reports] == [outcome]

    def test_a_shard_cancelled_before_its_start_is_not_scored(self) -> None:
        engine, held = ScriptedEngine(), HeldShard(make_lease())
        held.release()
        assert report_of(engine, held=held).outcome is ShardOutcome.RELEASED
        assert engine.batches == []

    def test_a_shard_aborted_by_the_engine_is_discarded(self) -> None:
        assert report_of(ScriptedEngine(ScoringAborted())).outcome is ShardOutcome.DISCARDED


def test_a_blocking_engine_scores_many_shards_concurrently() -> None:
    executor = Executor(LexicalEngine(delay_seconds=0.05))
    started = time.monotonic()
    ends = [begin(executor, make_request(*["query"] * (number + 1))) for number in range(20)]
    for number, end in enumerate(ends):
        report = end.result(10)()
        assert report.scores is not None
        assert len(report.scores.scores) == number + 1
    assert time.monotonic() - started < 20 * 0.05
