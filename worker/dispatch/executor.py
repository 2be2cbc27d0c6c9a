"""One claimed shard, from its request to what is to be told the ledger. The only place where shards meet the engine.

Talks to no store: the dispatcher claims before, and reports after.
"""

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from shared.contracts import RerankRequest, ScoreScale, ShardScores, WorkClass
from shared.errors import ScoringFailed
from shared.ledger.job_record import JobFailure
from shared.ledger.verdicts import Claim, ShardLease
from worker.dispatch.leases import HeldShard
from worker.engines.base import (
    BACKGROUND,
    BatchScores,
    Cancellation,
    EngineDied,
    EngineError,
    Pending,
    ScoringAborted,
    ScoringBatch,
    ScoringEngine,
    TransientEngineError,
)

logger = logging.getLogger(__name__)

EMPTY_DOCUMENT = "the document is empty"
SMALL_CHARACTERS = 20_000
"""About two milliseconds of a tokenizer."""


class ShardOutcome(StrEnum):
    """What became of a shard: scored, never to be scored, to be tried later, to be tried elsewhere, not wanted."""

    SCORED = "scored"
    FAILED = "failed"
    RETRY = "retry"
    GIVEN_BACK = "given back"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class ShardReport:
    """What is to be told the ledger of one shard; `scores` with SCORED, `failure` with FAILED and RETRY.

    `request` is the claim's, with this shard's documents.
    """

    lease: ShardLease
    work_class: WorkClass
    outcome: ShardOutcome
    scores: ShardScores | None = None
    failure: JobFailure | None = None
    request: RerankRequest | None = None


Begin = Callable[[ScoringBatch, Cancellation], Pending]
Ended = Callable[[Callable[[], ShardReport]], None]


class Executor:
    """Scores shards of one model. Owns the threads on which an engine that blocks is waited for."""

    def __init__(
        self, engine: ScoringEngine, threads: int = 64, start_ms: Callable[[float], float] = lambda _: 0.0
    ) -> None:
        """`start_ms` tells how much of a wait that ends now, in ms, was for a worker to start."""
        self._engine = engine
        self._start_ms = start_ms
        self._begin: Begin | None = getattr(engine, "begin", None)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="shard")
        self.on_engine_death: Callable[[], None] = lambda: None
        """Called, perhaps more than once, when the engine can do no more."""

    def begin(self, claim: Claim, held: HeldShard, work_class: WorkClass, ended: Ended) -> None:
        """Start scoring a claimed shard. Raises nothing: whatever goes wrong is the report.

        `ended` is called once, from any thread, with a function that makes the report. That is cheap, but not free:
        to be called where it delays nobody, and never on the engine's thread.
        """
        if self._begin is not None and work_class is WorkClass.INTERACTIVE and _is_small(claim):
            self._feed(self._begin, claim, held, work_class, ended)
        elif self._begin is not None:
            self._threads.submit(self._feed, self._begin, claim, held, work_class, ended)
        else:
            self._threads.submit(self._block, claim, held, work_class, ended)

    def _block(self, claim: Claim, held: HeldShard, work_class: WorkClass, ended: Ended) -> None:
        """Score on this thread."""

        def score() -> ShardScores:
            shard = self._shard(claim, work_class)
            return shard.scores(self._engine.score(shard.batch(held), held.cancellation) if shard.kept else None)

        report = self._report(claim, held, work_class, score)
        ended(lambda: report)

    def _feed(self, begin: Begin, claim: Claim, held: HeldShard, work_class: WorkClass, ended: Ended) -> None:
        """Hand the shard to an engine that calls back."""
        try:
            shard = self._shard(claim, work_class)
            pending = begin(shard.batch(held), held.cancellation) if shard.kept else None
        except Exception as error:
            failure = error
            ended(lambda: self._report(claim, held, work_class, partial(_raise, failure)))
            return

        def score() -> ShardScores:
            return shard.scores(pending.result() if pending else None)

        if pending is None:
            ended(lambda: self._report(claim, held, work_class, score))
        else:
            pending.add_done_callback(lambda _: ended(lambda: self._report(claim, held, work_class, score)))

    def _shard(self, claim: Claim, work_class: WorkClass) -> "_Shard":
        return _Shard(claim, work_class, self._engine.scale, self._start_ms(claim.queue_ms))

    def _report(
        self, claim: Claim, held: HeldShard, work_class: WorkClass, score: Callable[[], ShardScores]
    ) -> ShardReport:
        """What `score` answers or raises, as it is to be told the ledger."""
        lease = held.lease

        def report(outcome: ShardOutcome, reason: str | None = None, scores: ShardScores | None = None) -> ShardReport:
            failure = None if reason is None else JobFailure(ScoringFailed.code, reason)
            return ShardReport(lease, work_class, outcome, scores, failure, claim.request)

        try:
            return report(ShardOutcome.SCORED, scores=score())
        except ScoringAborted:
            return report(ShardOutcome.GIVEN_BACK if held.released else ShardOutcome.DROPPED)
        except EngineDied as error:
            logger.error("shard %s/%d is given back: %s", lease.job_id, lease.shard, error)
            self.on_engine_death()
            return report(ShardOutcome.GIVEN_BACK)
        except TransientEngineError as error:
            return report(ShardOutcome.RETRY, str(error))
        except EngineError as error:
            return report(ShardOutcome.FAILED, str(error))
        except Exception:
            logger.exception("shard %s/%d failed", lease.job_id, lease.shard)
            return report(ShardOutcome.FAILED, "the worker failed on this job; its log says why")


class _Shard:
    """One shard between its request and its scores. An empty document gets its own error, and is never scored."""

    def __init__(self, claim: Claim, work_class: WorkClass, scale: ScoreScale, start_ms: float) -> None:
        assert claim.request is not None
        self._request = claim.request
        self._queue_ms = claim.queue_ms
        self._start_ms = start_ms
        self._offset = BACKGROUND if work_class is WorkClass.BATCH else 0
        self._scale = scale
        self._texts = [document.text for document in claim.request.documents]
        self.kept = [position for position, text in enumerate(self._texts) if text.strip()]
        self._started = time.perf_counter()

    def batch(self, held: HeldShard) -> ScoringBatch:
        """What the engine is asked. Raises ScoringAborted when nobody wants it any more."""
        if held.cancellation.cancelled:
            raise ScoringAborted
        request = self._request
        return ScoringBatch(
            query=request.query,
            documents=[self._texts[position] for position in self.kept],
            instruction=request.instruction,
            max_tokens_per_query=request.max_tokens_per_query,
            max_tokens_per_doc=request.max_tokens_per_doc,
            max_chunks_per_doc=request.max_chunks_per_doc,
            overlap_tokens=request.overlap_tokens,
            priority=request.priority + self._offset,
        )

    def scores(self, scored: BatchScores | None) -> ShardScores:
        """The shard's scores, from those of its batch; None when there was nothing to score."""
        result = ShardScores(
            scores=[None] * len(self._texts),
            scale=self._scale,
            errors=dict.fromkeys(set(range(len(self._texts))) - set(self.kept), EMPTY_DOCUMENT),
            queue_ms=self._queue_ms,
            start_ms=self._start_ms,
        )
        if scored is None:
            return result
        kept = self.kept
        for place, position in enumerate(kept):
            result.scores[position] = scored.scores[place]
        result.errors.update({kept[place]: error for place, error in scored.errors.items()})
        result.truncated = [kept[place] for place in scored.truncated]
        result.windows = {kept[place]: window for place, window in scored.windows.items()}
        result.prompt_tokens = scored.prompt_tokens
        result.inference_ms = round((time.perf_counter() - self._started) * 1000, 3)
        return result


def _is_small(claim: Claim) -> bool:
    """Whether it is turned into tokens sooner than it would be handed to a thread."""
    documents = claim.request.documents if claim.request else []
    return sum(len(document.text) for document in documents) <= SMALL_CHARACTERS


def _raise(error: Exception) -> ShardScores:
    raise error
