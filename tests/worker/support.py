"""What the tests of the worker share: engines that do as they are told, a ledger that can be away, and doorbells."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from shared.contracts import ScoreScale, ShardScores, WorkClass
from shared.errors import StoreUnavailable
from shared.keys import queue_keys
from shared.ledger.job_ledger import JobLedger
from shared.ledger.job_record import JobFailure, JobStatus
from shared.ledger.limits import LEASE_SECONDS
from shared.ledger.verdicts import Claim, FinishVerdict, FreeSlots, ShardLease
from shared.ledger.worker_ledger import WorkerLedger
from shared.queue.messages import MessageBuilder, WakeUp
from tests.shared.support import JOB, MODEL, StoreView, make_request, make_submission
from worker.dispatch.dispatcher import Dispatcher
from worker.dispatch.executor import Executor
from worker.dispatch.leases import LeaseKeeper
from worker.dispatch.throughput import ThroughputMeter
from worker.engines.base import BatchScores, Cancellation, ScoringAborted, ScoringBatch, ScoringEngine

Answer = TypeVar("Answer")


def make_dispatcher(
    ledger: WorkerLedger,
    engine: ScoringEngine,
    leases: LeaseKeeper | None = None,
    *,
    concurrency: int = 8,
    reserved: int = 0,
    linger_seconds: float = 0.0,
    throughput: ThroughputMeter | None = None,
) -> Dispatcher:
    """One that renews nothing, unless it is given leases that do: what it holds must be done within a lease.

    It closes when its engine dies.
    """
    executor = Executor(engine)
    dispatcher = Dispatcher(
        ledger,
        executor,
        leases or LeaseKeeper(ledger),
        "host-1",
        concurrency=concurrency,
        reserved=reserved,
        linger_seconds=linger_seconds,
        throughput=throughput,
    )
    executor.on_engine_death = dispatcher.close
    return dispatcher


class ScriptedEngine:
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


class PatientEngine(ScriptedEngine):
    """Scores until it is cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()

    def score(self, batch: ScoringBatch, cancellation: Cancellation) -> BatchScores:
        self.begun.set()
        if not cancellation.wait(20):
            raise AssertionError("nobody cancelled it")
        raise ScoringAborted


class GuardedEngine(ScriptedEngine):
    """Keeps every batch until its first document is let go, and knows what is inside at any time."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = threading.Condition()
        self._inside: list[str] = []
        self._let_go: set[str] = set()
        self._open = False
        self.entered: list[tuple[str, ...]] = []
        """For each batch, in the order of their coming, who was inside: itself last."""

    def score(self, batch: ScoringBatch, cancellation: Cancellation) -> BatchScores:
        name = batch.documents[0]
        with self._changed:
            self._inside.append(name)
            self.entered.append(tuple(self._inside))
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: self._open or name in self._let_go, 20):
                raise AssertionError("nobody let it go")
            self._inside.remove(name)
        return super().score(batch, cancellation)

    def inside(self) -> set[str]:
        with self._changed:
            return set(self._inside)

    def let_go(self, *names: str) -> None:
        with self._changed:
            self._let_go.update(names)
            self._changed.notify_all()

    def let_all_go(self) -> None:
        """From now on nobody is kept."""
        with self._changed:
            self._open = True
            self._changed.notify_all()


class ShakyLedger(WorkerLedger):
    """The real ledger behind a connection that can be cut.

    `away`: nothing gets there. `lose`: so many calls of that name get there, and their answers do not come back.
    """

    def __init__(
        self, client: Any, messages: MessageBuilder | None = None, *, lease_seconds: float = LEASE_SECONDS
    ) -> None:
        super().__init__(client, MODEL, messages, lease_seconds=lease_seconds)
        self.away = False
        self.lose: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()

    def _through(self, name: str, call: Callable[[], Answer]) -> Answer:
        if not self.away:
            answer = call()
            if not self.lose[name]:
                return answer
            self.lose[name] -= 1
        self.failed[name] += 1
        raise StoreUnavailable("the job store cannot be reached")

    def claim_all(self, leases: Sequence[ShardLease], *, alone: bool) -> list[Claim]:
        return self._through("claim_all", partial(super().claim_all, leases, alone=alone))

    def finish_and_dequeue(
        self, finishes: Sequence[tuple[ShardLease, ShardScores, WorkClass]], room: FreeSlots
    ) -> tuple[list[FinishVerdict], list[WakeUp]]:
        return self._through("finish_and_dequeue", partial(super().finish_and_dequeue, finishes, room))

    def wait_for_wake_up(self, seconds: float, *, batch: bool) -> WakeUp | None:
        return self._through("wait_for_wake_up", partial(super().wait_for_wake_up, seconds, batch=batch))

    def release(self, lease: ShardLease, work_class: WorkClass) -> FinishVerdict:
        return self._through("release", partial(super().release, lease, work_class))

    def retry_later(self, lease: ShardLease, after_seconds: float, failure: JobFailure) -> FinishVerdict:
        return self._through("retry_later", partial(super().retry_later, lease, after_seconds, failure))

    def fail(self, lease: ShardLease, failure: JobFailure) -> FinishVerdict:
        return self._through("fail", partial(super().fail, lease, failure))


class WakeUpSender:
    """The pool's queues, as the API and the reconciler ring in them."""

    def __init__(self, client: Any, messages: MessageBuilder) -> None:
        self._client = client
        self._envelopes = messages

    def send(self, *shards: int, job_id: str = JOB, work_class: WorkClass = WorkClass.INTERACTIVE) -> None:
        """One doorbell for each shard, to be heard in this order."""
        for shard in shards:
            message = self._envelopes.build(queue_keys.queue_name(MODEL, work_class), job_id, shard)
            self.put(message, work_class)

    def put(self, message: bytes, work_class: WorkClass = WorkClass.INTERACTIVE) -> None:
        """Whatever it says."""
        self._client.lpush(queue_keys.queue(MODEL, work_class), message)

    def waiting(self, work_class: WorkClass = WorkClass.INTERACTIVE) -> int:
        return int(self._client.llen(queue_keys.queue(MODEL, work_class)))


class Pool:
    """Jobs, and what has become of them."""

    def __init__(self, ledger: JobLedger, store: StoreView, worker_ledger: WorkerLedger) -> None:
        self._ledger = ledger
        self._store = store
        self.worker_ledger = worker_ledger

    async def submit(self, *texts: str, job_id: str = JOB, work_class: WorkClass = WorkClass.INTERACTIVE) -> None:
        """One shard for each text; nobody is rung for."""
        request = make_request(*texts)
        await self._ledger.submit(make_submission(job_id, request=request, shards=len(texts), work_class=work_class))
        self._store.drop_messages()

    def run(self, engine: ScoringEngine, work_class: WorkClass = WorkClass.INTERACTIVE, *, shard: int = 0) -> None:
        """The first doorbell, to a dispatcher of its own."""
        make_dispatcher(self.worker_ledger, engine).run(JOB, shard, work_class)

    async def scores(self, job_id: str = JOB) -> list[list[float | None]]:
        record, shards = await self._ledger.read_finished(job_id)
        assert record is not None
        assert record.status is JobStatus.SUCCEEDED
        return [shard.scores for shard in shards]


def a_while(seconds: float = 0.1) -> None:
    """Long enough for what may happen to have happened."""
    time.sleep(seconds)


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
