"""Scores claimed shards with the engine, and turns each result or error into a report for the ledger.

Talks to no store: the dispatcher claims shards before, and reports them afterwards.
"""

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from shared.contracts import NumberedDocument, RerankRequest, ScoreScale, ShardScores, WorkClass
from shared.errors import InvalidRequest, ScoringFailed, TextTooLong
from shared.ledger.job_record import JobFailure
from shared.ledger.verdicts import Claim, ShardLease
from worker.dispatch.leases import HeldShard
from worker.dispatch.shard_trace import ShardTrace
from worker.engines.base import (
    BACKGROUND,
    BatchScores,
    Cancellation,
    EngineDied,
    EngineError,
    LimitRefused,
    Pending,
    ScoringAborted,
    ScoringBatch,
    ScoringEngine,
    TextOverLimit,
    TransientEngineError,
)

logger = logging.getLogger(__name__)

EMPTY_DOCUMENT = "the document is empty"
SMALL_CHARACTERS = 20_000
"""Texts up to this size take about two milliseconds to tokenize."""


class ShardOutcome(StrEnum):
    """How scoring a shard ended."""

    SCORED = "scored"
    FAILED = "failed"
    """The engine can never score it."""
    RETRY = "retry"
    """A transient error: score it later."""
    RELEASED = "released"
    """This worker stops: another worker scores it."""
    DISCARDED = "discarded"
    """The job has ended or the lease is lost: the scores are no longer needed."""


@dataclass(frozen=True, slots=True)
class ShardReport:
    """The result of one shard for the ledger; `scores` with SCORED, `failure` with FAILED and RETRY.

    `request` is the claim's request, with this shard's documents; `trace` its times, if it is traced.
    """

    lease: ShardLease
    work_class: WorkClass
    outcome: ShardOutcome
    scores: ShardScores | None = None
    failure: JobFailure | None = None
    request: RerankRequest | None = None
    trace: ShardTrace | None = None


Begin = Callable[[ScoringBatch, Cancellation], Pending]
OnEnd = Callable[[Callable[[], ShardReport]], None]


class Executor:
    """Scores shards of one model. Owns the threads that wait for a blocking engine."""

    def __init__(
        self, engine: ScoringEngine, threads: int = 64, start_ms: Callable[[float], float] = lambda _: 0.0
    ) -> None:
        """`start_ms(queue_ms)` returns how many ms of a shard's time in the queue were spent on a worker's start."""
        self._engine = engine
        self._start_ms = start_ms
        self._begin: Begin | None = getattr(engine, "begin", None)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="shard")
        self.on_engine_death: Callable[[], None] = lambda: None
        """Called, possibly more than once, when the engine has died."""

    def begin(self, claim: Claim, held: HeldShard, work_class: WorkClass, on_end: OnEnd) -> None:
        """Start scoring a claimed shard. Raises nothing: errors become the report.

        `on_end` is called once, from any thread, with a function that creates the report. Call that function on a
        thread other than the engine's, which it would delay.
        """
        if self._begin is not None and work_class is WorkClass.INTERACTIVE and _is_small(claim):
            self._score_with_callback(self._begin, claim, held, work_class, on_end)
        elif self._begin is not None:
            self._threads.submit(self._score_with_callback, self._begin, claim, held, work_class, on_end)
        else:
            self._threads.submit(self._score_blocking, claim, held, work_class, on_end)

    def _score_blocking(self, claim: Claim, held: HeldShard, work_class: WorkClass, on_end: OnEnd) -> None:
        """Score with a blocking engine, on this thread."""

        def score() -> ShardScores:
            shard = self._shard(claim, work_class)
            scored = self._engine.score(shard.batch(held), held.cancellation) if shard.scorable else None
            if trace is not None:
                trace.scored()
            return shard.scores(scored)

        trace = ShardTrace.of(claim)
        report = self._report(claim, held, work_class, score, trace)
        on_end(lambda: report)

    def _score_with_callback(
        self, begin: Begin, claim: Claim, held: HeldShard, work_class: WorkClass, on_end: OnEnd
    ) -> None:
        """Pass the shard to an engine that calls back."""
        trace = ShardTrace.of(claim)
        try:
            shard = self._shard(claim, work_class)
            pending = begin(shard.batch(held), held.cancellation) if shard.scorable else None
        except Exception as error:
            failure = error
            on_end(lambda: self._report(claim, held, work_class, partial(_raise, failure), trace))
            return
        if trace is not None:
            trace.prepared()

        def score() -> ShardScores:
            return shard.scores(pending.result() if pending else None)

        if pending is None:
            on_end(lambda: self._report(claim, held, work_class, score, trace))
            return

        def end(_: object) -> None:
            if trace is not None:
                trace.scored()
            on_end(lambda: self._report(claim, held, work_class, score, trace))

        pending.add_done_callback(end)

    def _shard(self, claim: Claim, work_class: WorkClass) -> "_Shard":
        return _Shard(claim, work_class, self._engine.scale, self._start_ms(claim.queue_ms))

    def _report(
        self,
        claim: Claim,
        held: HeldShard,
        work_class: WorkClass,
        score: Callable[[], ShardScores],
        trace: ShardTrace | None,
    ) -> ShardReport:
        """The report for what `score` returns or raises."""
        lease = held.lease

        def report(
            outcome: ShardOutcome, reason: JobFailure | str | None = None, scores: ShardScores | None = None
        ) -> ShardReport:
            failure = JobFailure(ScoringFailed.code, reason) if isinstance(reason, str) else reason
            return ShardReport(lease, work_class, outcome, scores, failure, claim.request, trace)

        try:
            return report(ShardOutcome.SCORED, scores=score())
        except ScoringAborted:
            return report(ShardOutcome.RELEASED if held.released else ShardOutcome.DISCARDED)
        except EngineDied as error:
            logger.error("a shard is released", extra=lease.log_fields(error=error))
            self.on_engine_death()
            return report(ShardOutcome.RELEASED)
        except TransientEngineError as error:
            return report(ShardOutcome.RETRY, str(error))
        except LimitRefused as error:
            return report(ShardOutcome.FAILED, JobFailure(InvalidRequest.code, str(error), error.param))
        except TextOverLimit as error:
            return report(ShardOutcome.FAILED, _describe_too_long(error, claim))
        except EngineError as error:
            return report(ShardOutcome.FAILED, str(error))
        except Exception:
            logger.exception("a shard failed", extra=lease.log_fields())
            return report(ShardOutcome.FAILED, "the worker failed on this job; its log has the reason")


class _Shard:
    """Converts one shard to an engine's batch and back. Empty documents get an error and are not scored."""

    def __init__(self, claim: Claim, work_class: WorkClass, scale: ScoreScale, start_ms: float) -> None:
        assert claim.request is not None
        self._request = claim.request
        self._queue_ms = claim.queue_ms
        self._start_ms = start_ms
        # Batch work that was claimed for its share competes with interactive work.
        self._offset = BACKGROUND if work_class is WorkClass.BATCH and not claim.guaranteed else 0
        self._scale = scale
        self._texts = [document.text for document in claim.request.documents]
        self.scorable = [position for position, text in enumerate(self._texts) if text.strip()]
        self._started = time.perf_counter()

    def batch(self, held: HeldShard) -> ScoringBatch:
        """The engine's input. Raises ScoringAborted when the shard was cancelled."""
        if held.cancellation.cancelled:
            raise ScoringAborted
        request = self._request
        return ScoringBatch(
            query=request.query,
            documents=[self._texts[position] for position in self.scorable],
            instruction=request.instruction,
            max_tokens_per_query=request.max_tokens_per_query,
            max_tokens_per_doc=request.max_tokens_per_doc,
            max_chunks_per_doc=request.max_chunks_per_doc,
            overlap_tokens=request.overlap_tokens,
            max_prompt_tokens=request.max_prompt_tokens,
            truncation=request.truncation,
            priority=request.priority + self._offset,
        )

    def scores(self, scored: BatchScores | None) -> ShardScores:
        """The shard's scores from those of its batch, which is None when no document was scored."""
        result = ShardScores(
            scores=[None] * len(self._texts),
            scale=self._scale,
            errors=dict.fromkeys(set(range(len(self._texts))) - set(self.scorable), EMPTY_DOCUMENT),
            queue_ms=self._queue_ms,
            start_ms=self._start_ms,
        )
        if scored is None:
            return result
        scorable = self.scorable
        for index, position in enumerate(scorable):
            result.scores[position] = scored.scores[index]
        result.errors.update({scorable[index]: error for index, error in scored.errors.items()})
        result.truncated = [scorable[index] for index in scored.truncated]
        result.windows = {scorable[index]: window for index, window in scored.windows.items()}
        result.prompt_tokens = scored.prompt_tokens
        result.inference_ms = round((time.perf_counter() - self._started) * 1000, 3)
        return result


def _is_small(claim: Claim) -> bool:
    """Whether tokenizing the shard here takes less time than passing it to a thread."""
    documents = claim.request.documents if claim.request else []
    return sum(len(document.text) for document in documents) <= SMALL_CHARACTERS


def _describe_too_long(error: TextOverLimit, claim: Claim) -> JobFailure:
    """The failure, which names the document by its position in the request."""
    field = error.text
    if isinstance(field, int):
        assert claim.request is not None
        # The engine got no empty documents.
        document = [each for each in claim.request.documents if each.text.strip()][field]
        position = document.position if isinstance(document, NumberedDocument) else None
        field = "documents" if position is None else f"documents[{position}]"
    message = f"{field}: {error.reason}, and the request forbids truncation"
    return JobFailure(TextTooLong.code, message, field, error.tokens, error.limit)


def _raise(error: Exception) -> ShardScores:
    raise error
