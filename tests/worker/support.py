"""What the tests of the worker share: engines that do as they are told, and threads that end."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import redis

from shared.contracts import ScoreScale
from shared.worker_ledger import WorkerLedger
from tests.shared.support import MODEL
from worker.engines.base import BatchScores, Cancellation, ScoringAborted, ScoringBatch, ScoringEngine
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


class PatientEngine(ToldEngine):
    """Scores until it is cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()

    def score(self, batch: ScoringBatch, cancellation: Cancellation) -> BatchScores:
        self.begun.set()
        if not cancellation.wait(20):
            raise AssertionError("nobody cancelled it")
        raise ScoringAborted


@contextmanager
def in_thread(call: Callable[[], None]) -> Iterator["Future[None]"]:
    """Run it beside the block; in the end it must be over, and well."""
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(call)
        yield running
        running.result(timeout=20)


def wait_until(holds: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.005)
