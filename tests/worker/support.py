"""What the tests of the worker share: an engine whose answers and failures are told beforehand."""

import redis

from shared.contracts import ScoreScale
from shared.worker_ledger import WorkerLedger
from tests.shared.support import MODEL
from worker.engines.base import BatchScores, Cancellation, ScoringBatch, ScoringEngine
from worker.executor import Executor
from worker.leases import Leases


def make_executor(client: redis.Redis, engine: ScoringEngine) -> Executor:
    """One that renews nothing: what it holds must be done within a lease."""
    ledger = WorkerLedger(client, MODEL)
    return Executor(ledger, engine, Leases(ledger), "host-1")


class ToldEngine:
    """Remembers its batches; answers what it was told, else a score for each document: 0, 1, 2, ..."""

    scale = ScoreScale.LOGIT

    def __init__(self, answer: BatchScores | Exception | None = None) -> None:
        self._answer = answer
        self.batches: list[ScoringBatch] = []

    def score(self, batch: ScoringBatch, cancellation: Cancellation) -> BatchScores:
        self.batches.append(batch)
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer or BatchScores([float(place) for place in range(len(batch.documents))], prompt_tokens=7)

    def close(self) -> None:
        """Nothing is held."""
