"""One shard, from claim to finish. The only place where the ledger and the engine meet.

Messages are doorbells: whatever a message says, the claim decides. Nothing here is retried by Celery.
"""

import logging
import time
from uuid import uuid4

from shared.contracts import RerankRequest, ShardScores, WorkClass
from shared.errors import ScoringFailed
from shared.jobs import JobFailure
from shared.ledger import ClaimVerdict, FinishVerdict, WorkerLedger
from worker.engines.base import EngineError, ScoringBatch, ScoringEngine

logger = logging.getLogger(__name__)

EMPTY_DOCUMENT = "the document is empty"
BATCH_PRIORITY_OFFSET = 1000
"""Above every caller's priority (0..999): batch work runs in the engine when nothing interactive waits."""


class Executor:
    """Runs shards of one model. Called from many threads at once."""

    def __init__(self, ledger: WorkerLedger, engine: ScoringEngine, worker: str) -> None:
        self._ledger = ledger
        self._engine = engine
        self._worker = worker

    def run(self, job_id: str, shard: int, work_class: WorkClass) -> None:
        """Claim the shard, score it, hand the scores in. Raises StoreUnavailable when Redis is gone."""
        token = f"{self._worker}:{uuid4().hex}"
        claim = self._ledger.claim(job_id, shard, token)
        if claim.verdict is not ClaimVerdict.RUN or claim.request is None:
            logger.info("shard %s/%d: %s, nothing to do", job_id, shard, claim.verdict)
            return
        try:
            scores = self._score(claim.request, claim.queue_ms, work_class)
        except EngineError as error:
            logger.warning("shard %s/%d failed: %s", job_id, shard, error)
            self._ledger.fail(job_id, shard, token, JobFailure(ScoringFailed.code, str(error)))
            return
        except Exception:
            logger.exception("shard %s/%d failed", job_id, shard)
            failure = JobFailure(ScoringFailed.code, "the worker failed on this job; its log says why")
            self._ledger.fail(job_id, shard, token, failure)
            return
        verdict = self._ledger.finish(job_id, shard, token, scores)
        if verdict is not FinishVerdict.ACCEPTED:
            logger.info("shard %s/%d: the finish was %s, scores dropped", job_id, shard, verdict)

    def _score(self, request: RerankRequest, queue_ms: float, work_class: WorkClass) -> ShardScores:
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
        offset = BATCH_PRIORITY_OFFSET if work_class is WorkClass.BATCH else 0
        batch = ScoringBatch(
            query=request.query,
            documents=[texts[position] for position in kept],
            max_tokens_per_doc=request.max_tokens_per_doc,
            priority=request.priority + offset,
        )
        started = time.perf_counter()
        scored = self._engine.score(batch)
        result.inference_ms = round((time.perf_counter() - started) * 1000, 3)
        for place, position in enumerate(kept):
            result.scores[position] = scored.scores[place]
        result.errors.update({kept[place]: error for place, error in scored.errors.items()})
        result.truncated = [kept[place] for place in scored.truncated]
        result.prompt_tokens = scored.prompt_tokens
        return result
