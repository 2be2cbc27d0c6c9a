"""One shard, from claim to finish. The only place where the ledger and the engine meet.

Messages are doorbells: whatever a message says, the claim decides. Nothing here is retried by Celery.
"""

import logging
import threading
import time
from collections.abc import Callable
from uuid import uuid4

from shared.contracts import RerankRequest, ShardScores, WorkClass
from shared.errors import ScoringFailed, StoreUnavailable
from shared.jobs import JobFailure
from shared.worker_ledger import Claim, ClaimVerdict, FinishVerdict, ShardLease, WorkerLedger
from worker.engines.base import (
    EngineDied,
    EngineError,
    ScoringAborted,
    ScoringBatch,
    ScoringEngine,
    TransientEngineError,
)
from worker.gate import Gate
from worker.leases import HeldShard, Leases

logger = logging.getLogger(__name__)

EMPTY_DOCUMENT = "the document is empty"
BATCH_PRIORITY_OFFSET = 1000
"""Above every caller's priority (0..999): batch work runs in the engine when nothing interactive waits."""
RETRY_AFTER_SECONDS = 2.0
"""How long a shard rests after its engine asked for another try."""
_STORE_RETRY_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0)


class Executor:
    """Runs shards of one model. Called from many threads at once."""

    def __init__(
        self,
        ledger: WorkerLedger,
        engine: ScoringEngine,
        leases: Leases,
        worker: str,
    ) -> None:
        self._ledger = ledger
        self._engine = engine
        self._leases = leases
        self._worker = worker
        self.on_engine_death: Callable[[], None] = lambda: None
        """Called, perhaps more than once, when the engine can do no more."""
        self._gate = Gate()
        self._leaving = threading.Event()

    def leave(self) -> None:
        """From now on claim nothing, and do not wait for a Redis that is away."""
        self._leaving.set()

    def run(self, job_id: str, shard: int, work_class: WorkClass) -> None:
        """Claim the shard, score it, hand the scores in. Raises StoreUnavailable when it could not be claimed."""
        if self._leaving.is_set():
            # Unheard: the reconciler rings again.
            return
        lease = ShardLease(job_id, shard, f"{self._worker}:{uuid4().hex}")
        claim = self._ledger.claim(lease)
        if claim.verdict is not ClaimVerdict.RUN or claim.request is None:
            logger.debug("shard %s/%d: %s, nothing to do", job_id, shard, claim.verdict)
            return
        with self._leases.holding(lease) as held:
            report = self._attempt(claim, claim.request, held, work_class)
            verdict = self._report(report)
        if verdict is not FinishVerdict.ACCEPTED:
            logger.info("shard %s/%d: %s", job_id, shard, verdict or "unreported, its lease will run out")

    def _attempt(
        self, claim: Claim, request: RerankRequest, held: HeldShard, work_class: WorkClass
    ) -> Callable[[], FinishVerdict]:
        """Score; answers what is to be told the ledger."""
        lease = held.lease
        try:
            with self._gate.passing(alone=claim.alone):
                scores = self._score(request, claim.queue_ms, work_class, held)
        except ScoringAborted:
            if held.given_back:
                return lambda: self._ledger.give_back(lease, work_class)
            return lambda: FinishVerdict.ENDED
        except EngineDied as error:
            logger.error("shard %s/%d is given back: %s", lease.job_id, lease.shard, error)
            self.on_engine_death()
            return lambda: self._ledger.give_back(lease, work_class)
        except TransientEngineError as error:
            failure = JobFailure(ScoringFailed.code, str(error))
            return lambda: self._ledger.retry_later(lease, RETRY_AFTER_SECONDS, failure)
        except EngineError as error:
            failure = JobFailure(ScoringFailed.code, str(error))
            return lambda: self._ledger.fail(lease, failure)
        except Exception:
            logger.exception("shard %s/%d failed", lease.job_id, lease.shard)
            failure = JobFailure(ScoringFailed.code, "the worker failed on this job; its log says why")
            return lambda: self._ledger.fail(lease, failure)
        return lambda: self._ledger.finish(lease, scores, work_class)

    def _report(self, report: Callable[[], FinishVerdict]) -> FinishVerdict | None:
        """Tell the ledger, however long Redis is away; None when this worker leaves before it is back."""
        attempt = 0
        while True:
            try:
                return report()
            except StoreUnavailable:
                pause = _STORE_RETRY_SECONDS[min(attempt, len(_STORE_RETRY_SECONDS) - 1)]
                attempt += 1
                if self._leaving.wait(pause) and attempt > len(_STORE_RETRY_SECONDS):
                    return None

    def _score(self, request: RerankRequest, queue_ms: float, work_class: WorkClass, held: HeldShard) -> ShardScores:
        """Score what can be scored; an empty document gets its own error and never reaches the engine."""
        texts = [document.text for document in request.documents]
        kept = [position for position, text in enumerate(texts) if text.strip()]
        result = ShardScores(
            scores=[None] * len(texts),
            scale=self._engine.scale,
            errors=dict.fromkeys(set(range(len(texts))) - set(kept), EMPTY_DOCUMENT),
            queue_ms=queue_ms,
        )
        if not kept:
            return result
        if held.cancellation.cancelled:
            raise ScoringAborted
        offset = BATCH_PRIORITY_OFFSET if work_class is WorkClass.BATCH else 0
        batch = ScoringBatch(
            query=request.query,
            documents=[texts[position] for position in kept],
            instruction=request.instruction,
            max_tokens_per_query=request.max_tokens_per_query,
            max_tokens_per_doc=request.max_tokens_per_doc,
            max_chunks_per_doc=request.max_chunks_per_doc,
            overlap_tokens=request.overlap_tokens,
            priority=request.priority + offset,
        )
        started = time.perf_counter()
        scored = self._engine.score(batch, held.cancellation)
        result.inference_ms = round((time.perf_counter() - started) * 1000, 3)
        for place, position in enumerate(kept):
            result.scores[position] = scored.scores[place]
        result.errors.update({kept[place]: error for place, error in scored.errors.items()})
        result.truncated = [kept[place] for place in scored.truncated]
        result.windows = {kept[place]: window for place, window in scored.windows.items()}
        result.prompt_tokens = scored.prompt_tokens
        return result
