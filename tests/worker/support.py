"""Shared by the worker's tests: scripted engines, a ledger that can be unreachable, and wake-up messages."""

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
from shared.keys import job_keys, pool_keys, queue_keys
from shared.ledger.job_ledger import JobLedger
from shared.ledger.job_record import JobFailure, JobStatus
from shared.ledger.limits import LEASE_SECONDS
from shared.ledger.verdicts import Claim, ClaimedShard, ClaimRequest, FinishVerdict, ShardLease
from shared.ledger.worker_ledger import WorkerLedger
from shared.queue.messages import MessageBuilder, WakeUp
from tests.shared.support import JOB, MODEL, OWNER, StoreView, make_request, make_submission
from worker.dispatch.dispatcher import Dispatcher
from worker.dispatch.executor import Executor
from worker.dispatch.leases import LeaseKeeper
from worker.dispatch.throughput import ThroughputMeter
from worker.engines.base import BatchScores, Cancellation, ScoringAborted, ScoringBatch, ScoringEngine

Result = TypeVar("Result")


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
    """A dispatcher that closes when its engine dies.

    Without `leases` it renews no lease, so every shard must be finished before its lease expires.
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
    """Records its batches. Returns or raises `result`; without it, scores the documents 0, 1, 2, ..."""

    scale = ScoreScale.LOGIT
    dtype = None

    def __init__(self, result: BatchScores | Exception | None = None) -> None:
        self._result = result
        self.batches: list[ScoringBatch] = []

    def score(self, batch: ScoringBatch, cancellation: Cancellation) -> BatchScores:
        self.batches.append(batch)
        if isinstance(self._result, Exception):
            raise self._result
        return self._result or BatchScores([float(place) for place in range(len(batch.documents))], prompt_tokens=7)

    def close(self) -> None:
        pass


class EngineUntilCancelled(ScriptedEngine):
    """Scores until it is cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.started = threading.Event()

    def score(self, batch: ScoringBatch, cancellation: Cancellation) -> BatchScores:
        self.started.set()
        if not cancellation.wait(20):
            raise AssertionError("the batch was not cancelled")
        raise ScoringAborted


class ManualEngine(ScriptedEngine):
    """Keeps every batch in progress until the test finishes it. Names a batch by its first document."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = threading.Condition()
        self._in_progress: list[str] = []
        self._finished: set[str] = set()
        self._all_finished = False
        self.starts: list[tuple[str, ...]] = []
        """For each batch, in the order of their starts, the batches then in progress; the last is the batch itself."""

    def score(self, batch: ScoringBatch, cancellation: Cancellation) -> BatchScores:
        name = batch.documents[0]
        with self._changed:
            self._in_progress.append(name)
            self.starts.append(tuple(self._in_progress))
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: self._all_finished or name in self._finished, 20):
                raise AssertionError("the test did not finish the batch")
            self._in_progress.remove(name)
        return super().score(batch, cancellation)

    def in_progress(self) -> set[str]:
        with self._changed:
            return set(self._in_progress)

    def finish(self, *names: str) -> None:
        with self._changed:
            self._finished.update(names)
            self._changed.notify_all()

    def finish_all(self) -> None:
        """Finish every batch, including later ones."""
        with self._changed:
            self._all_finished = True
            self._changed.notify_all()


class UnreliableLedger(WorkerLedger):
    """The real ledger behind a connection that can fail.

    `unreachable`: no call reaches Redis. `lost_replies`: the next so many calls of this name take effect, but their
    replies are lost. `failures` counts the failed calls by name.
    """

    def __init__(
        self, client: Any, messages: MessageBuilder | None = None, *, lease_seconds: float = LEASE_SECONDS
    ) -> None:
        super().__init__(client, MODEL, messages, lease_seconds=lease_seconds)
        self.unreachable = False
        self.lost_replies: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()

    def _call_unreliably(self, name: str, call: Callable[[], Result]) -> Result:
        if not self.unreachable:
            result = call()
            if not self.lost_replies[name]:
                return result
            self.lost_replies[name] -= 1
        self.failures[name] += 1
        raise StoreUnavailable("the job store cannot be reached")

    def claim(self, lease: ShardLease, *, alone: bool = True) -> Claim:
        return self._call_unreliably("claim", partial(super().claim, lease, alone=alone))

    def finish_and_claim(
        self, finishes: Sequence[tuple[ShardLease, ShardScores, WorkClass]], request: ClaimRequest | None
    ) -> tuple[list[FinishVerdict], list[ClaimedShard]]:
        return self._call_unreliably("finish_and_claim", partial(super().finish_and_claim, finishes, request))

    def wait_for_wake_up(self, seconds: float, *, batch: bool) -> WakeUp | None:
        return self._call_unreliably("wait_for_wake_up", partial(super().wait_for_wake_up, seconds, batch=batch))

    def release(self, lease: ShardLease, work_class: WorkClass) -> FinishVerdict:
        return self._call_unreliably("release", partial(super().release, lease, work_class))

    def retry_later(self, lease: ShardLease, after_seconds: float, failure: JobFailure) -> FinishVerdict:
        return self._call_unreliably("retry_later", partial(super().retry_later, lease, after_seconds, failure))

    def fail(self, lease: ShardLease, failure: JobFailure) -> FinishVerdict:
        return self._call_unreliably("fail", partial(super().fail, lease, failure))


class WakeUpSender:
    """Enqueues shards as the ledger's scripts do: in the pool's order, with wake-up messages in its queues."""

    def __init__(self, client: Any, messages: MessageBuilder) -> None:
        self._client = client
        self._messages = messages

    def send(self, *shards: int, job_id: str = JOB, work_class: WorkClass = WorkClass.INTERACTIVE) -> None:
        """Enqueue the shards in this order. A shard that is not queued gets a message only."""
        for shard in shards:
            add_to_order(self._client, job_id, shard, work_class)
            message = self._messages.build(queue_keys.queue_name(MODEL, work_class), job_id, shard)
            self.put(message, work_class)

    def put(self, message: bytes, work_class: WorkClass = WorkClass.INTERACTIVE) -> None:
        """Enqueue any bytes."""
        self._client.lpush(queue_keys.queue(MODEL, work_class), message)

    def clear(self) -> None:
        """Delete all messages."""
        self._client.delete(*(queue_keys.queue(MODEL, work_class) for work_class in WorkClass))

    def waiting(self, work_class: WorkClass = WorkClass.INTERACTIVE) -> int:
        return int(self._client.llen(queue_keys.queue(MODEL, work_class)))


class Pool:
    """Submits jobs to a pool, runs its worker, and reads the results."""

    def __init__(self, ledger: JobLedger, store: StoreView, worker_ledger: WorkerLedger, client: Any) -> None:
        self._ledger = ledger
        self._store = store
        self._client = client
        self.worker_ledger = worker_ledger

    async def submit(self, *texts: str, job_id: str = JOB, work_class: WorkClass = WorkClass.INTERACTIVE) -> None:
        """Submit a job with one shard for each text.

        Enqueues no message, and only the first shard of JOB is in the pool's order: `WakeUpSender.send` adds others.
        """
        request = make_request(*texts)
        await self._ledger.submit(make_submission(job_id, request=request, shards=len(texts), work_class=work_class))
        self._store.drop_messages()
        later = [f"{job_id}/{shard}" for shard in range(1 if job_id == JOB else 0, len(texts))]
        if later:
            self._client.zrem(pool_keys.order(MODEL, work_class, OWNER), *later)

    def run(self, engine: ScoringEngine, work_class: WorkClass = WorkClass.INTERACTIVE, *, shard: int = 0) -> None:
        """Run a new dispatcher with this shard in the order."""
        add_to_order(self._client, JOB, shard, work_class)
        make_dispatcher(self.worker_ledger, engine).run(JOB, shard, work_class)

    async def scores(self, job_id: str = JOB) -> list[list[float | None]]:
        record, shards = await self._ledger.read_finished(job_id)
        assert record is not None
        assert record.status is JobStatus.SUCCEEDED
        return [shard.scores for shard in shards]


def add_to_order(client: Any, job_id: str, shard: int, work_class: WorkClass) -> None:
    """Put a queued shard behind those that are in the pool's order."""
    if client.hget(job_keys.shards(job_id), f"{shard}:status") == b"queued":
        client.zadd(pool_keys.order(MODEL, work_class, OWNER), {f"{job_id}/{shard}": time.time() * 1000}, nx=True)
        # Second: a claim removes owners without shards.
        client.zadd(pool_keys.turns(MODEL, work_class), {OWNER: 0}, nx=True)


def wait_briefly(seconds: float = 0.1) -> None:
    """Give other threads and processes time to do what the test says they must not do."""
    time.sleep(seconds)


@contextmanager
def in_thread(call: Callable[[], None]) -> Iterator["Future[None]"]:
    """Run the call on a thread during the block. Afterwards it must end without an exception."""
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(call)
        yield running
        running.result(timeout=20)


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"the condition is not true after {seconds:g} s"
        time.sleep(0.005)
