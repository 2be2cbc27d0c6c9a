"""Claims shards, has them scored, and reports the results, several per round trip.

Celery receives the first wake-up message. While the worker is busy, and for a moment afterwards, the dispatcher reads
the queues itself and dequeues all waiting messages, so that under load a shard costs a share of a round trip instead of
a Celery message. A message is only a hint: the claim decides. A lost message costs seconds, because the reconciler
sends it again.
"""

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple
from uuid import uuid4

from shared.contracts import WorkClass
from shared.errors import ScoringFailed
from shared.ledger.job_record import JobFailure
from shared.ledger.verdicts import NO_FREE_SLOTS, Claim, ClaimVerdict, FreeSlots, ShardLease
from shared.ledger.worker_ledger import WorkerLedger
from shared.queue.messages import WakeUp
from worker.dispatch.executor import Executor, ShardOutcome, ShardReport
from worker.dispatch.leases import HeldShard, LeaseKeeper
from worker.dispatch.listener import QueueListener
from worker.dispatch.result_reporter import CacheScores, ResultReporter
from worker.dispatch.throughput import ThroughputMeter

logger = logging.getLogger(__name__)

LINGER_SECONDS = 1.0
"""How long the dispatcher reads the queues after its last shard, before Celery receives messages again."""
_POLL_SECONDS = 0.1
"""How soon a stop of this worker is noticed."""
BATCH_PAIRS = 256
"""Batch pairs in progress above which no more are claimed: enough to keep an engine busy while more are fetched.
Unclaimed work can be scored by other workers, and does not delay interactive work."""
BATCH_SHARDS_AT_ONCE = 8
UNREADABLE = JobFailure(ScoringFailed.code, "the worker cannot decode this job")


class _Size(NamedTuple):
    """What a shard counts towards the limits."""

    work_class: WorkClass
    pairs: int
    tokens: int


class Dispatcher:
    """Moves shards between the queues, the ledger and the executor of one worker."""

    def __init__(
        self,
        ledger: WorkerLedger,
        executor: Executor,
        leases: LeaseKeeper,
        worker: str,
        *,
        concurrency: int,
        reserved: int = 0,
        linger_seconds: float = LINGER_SECONDS,
        cache_scores: CacheScores | None = None,
        throughput: ThroughputMeter | None = None,
    ) -> None:
        """`concurrency`: shards in progress at once (0: only the one passed to `run`), `reserved` of them interactive.

        `cache_scores` is called, on a separate thread, with all reported scores; `throughput` measures the work.
        """
        self._ledger = ledger
        self._executor = executor
        self._leases = leases
        self._worker = worker
        self._concurrency = concurrency
        self._batch_limit = concurrency - reserved
        self._linger_seconds = linger_seconds
        self._throughput = throughput or ThroughputMeter()
        self._reporter = ResultReporter(ledger, cache_scores)
        self._listener = QueueListener(ledger, self._wake)
        self._serving = threading.Lock()
        self._closing = threading.Event()
        self._changed = threading.Condition()
        self._running: Counter[WorkClass] = Counter()
        self._batch_pairs = 0
        self._ended: deque[tuple[_Size, Callable[[], ShardReport]]] = deque()
        self._done: deque[ShardReport] = deque()
        self._suspects: deque[WakeUp] = deque()
        """Shards that may have crashed a worker: each is claimed only when it can run alone."""
        self._suspect_lease: ShardLease | None = None
        """The lease of the suspect that is running."""

    def close(self) -> None:
        """Claim nothing more; shards in progress continue."""
        self._closing.set()

    def stop_waiting(self) -> None:
        """Claim nothing more, and stop waiting for an unreachable Redis after a few seconds."""
        self._closing.set()
        self._reporter.stop_waiting()

    def finish(self) -> None:
        """Wait until all reported scores are cached. Call it only when no shard is in progress."""
        self._reporter.close()

    def run(self, job_id: str, shard: int, work_class: WorkClass) -> None:
        """Score the shard and everything else that is queued. Raises StoreUnavailable when the shard was not claimed.

        Concurrent calls run one after the other.
        """
        with self._serving:
            self._serve(WakeUp(job_id, shard, work_class))

    def _serve(self, first: WakeUp) -> None:
        try:
            self._start([first], retry=False)
            while True:
                while self._has_work():
                    self._wait()
                    wake_ups = self._listener.take(self._free_slots())
                    self._start(wake_ups + self._report_and_dequeue(wake_ups))
                wake_ups = self._linger()
                if not wake_ups:
                    return
                self._start(wake_ups)
        finally:
            # Requeue messages that were received but not processed, for example because the worker stops.
            self._ledger.enqueue(self._listener.stop() + list(self._suspects))
            self._suspects.clear()

    def _has_work(self) -> bool:
        # Locked: a shard moves from running to done in two steps.
        with self._changed:
            return bool(self._running.total() or self._done or (self._suspects and not self._closing.is_set()))

    def _wait(self) -> None:
        """Wait until a shard ends or a message arrives; listen while slots are free."""
        free = self._listen_if_free()
        with self._changed:
            self._changed.wait_for(
                lambda: self._ended or self._done or self._listener.has_wake_ups(free), _POLL_SECONDS
            )

    def _listen_if_free(self) -> FreeSlots:
        free = self._free_slots()
        if free.shards:
            self._listener.start(batch=free.batch > 0)
        else:
            self._listener.pause()
        # Received too late: another worker may have free slots.
        self._ledger.enqueue(self._listener.reject(free))
        return free

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _free_slots(self) -> FreeSlots:
        """How many more shards can be claimed."""
        if self._suspects or self._suspect_lease or self._closing.is_set():
            return NO_FREE_SLOTS
        free = max(0, self._concurrency - self._running.total())
        batch = max(0, self._batch_limit - self._running[WorkClass.BATCH])
        if self._batch_pairs >= BATCH_PAIRS:
            batch = 0
        return FreeSlots(free, min(free, batch, BATCH_SHARDS_AT_ONCE))

    def _linger(self) -> list[WakeUp]:
        """Read the queues for a moment without work. Returns the messages received."""
        until = time.monotonic() + self._linger_seconds
        while (free := self._free_slots()).shards and (left := until - time.monotonic()) > 0:
            self._listen_if_free()
            with self._changed:
                if self._changed.wait_for(lambda: self._listener.has_wake_ups(free), min(left, _POLL_SECONDS)):
                    break
        else:
            # A message that arrives at the last moment must not wait for the next one.
            self._listener.pause(wait=True)
        return self._listener.take(self._free_slots())

    def _start(self, wake_ups: Sequence[WakeUp], *, retry: bool = True) -> None:
        """Claim shards and start scoring. A shard that must run alone is claimed when nothing else runs."""
        self._claim(wake_ups, alone=False, retry=retry)
        if self._suspects and not self._running.total() and not self._done:
            self._claim([self._suspects.popleft()], alone=True, retry=retry)

    def _claim(self, wake_ups: Sequence[WakeUp], *, alone: bool, retry: bool) -> None:
        """Claim the shards. Retries while Redis is unreachable; without `retry` raises StoreUnavailable.

        A claim whose reply was lost may have succeeded, and its shards would later count as crashed. Therefore the
        claim is repeated with the same tokens.
        """
        if not wake_ups:
            return
        if self._closing.is_set():
            self._ledger.enqueue(wake_ups)
            return
        leases = [ShardLease(wake_up.job_id, wake_up.shard, f"{self._worker}:{uuid4().hex}") for wake_up in wake_ups]
        call = partial(self._ledger.claim_all, leases, alone=alone)
        claims = self._reporter.retry_during_outages(call) if retry else call()
        if claims is None:
            logger.warning("%d shards could not be claimed, the reconciler sends their messages again", len(leases))
            return
        for wake_up, lease, claim in zip(wake_ups, leases, claims, strict=True):
            if claim.verdict is ClaimVerdict.RUN:
                if alone:
                    self._suspect_lease = lease
                self._begin(claim, self._leases.hold(lease), wake_up.work_class)
            elif claim.verdict is ClaimVerdict.UNREADABLE:
                self._leases.hold(lease)
                # A worker of another version may be able to decode it.
                self._done.append(ShardReport(lease, wake_up.work_class, ShardOutcome.RETRY, failure=UNREADABLE))
            elif claim.verdict is ClaimVerdict.ALONE:
                self._suspects.append(wake_up)
            else:
                logger.debug("shard %s/%d: %s, nothing to do", wake_up.job_id, wake_up.shard, claim.verdict)

    def _begin(self, claim: Claim, held: HeldShard, work_class: WorkClass) -> None:
        size = _Size(work_class, len(claim.request.documents) if claim.request else 0, claim.tokens)
        if self._reporter.stopping:
            # The shard was claimed while the worker stopped, after the other shards had been released.
            held.release()
        with self._changed:
            self._running[work_class] += 1
            if work_class is WorkClass.BATCH:
                self._batch_pairs += size.pairs
        self._throughput.shard_started(size.tokens)
        self._executor.begin(claim, held, work_class, partial(self._end, size))

    def _end(self, size: _Size, report: Callable[[], ShardReport]) -> None:
        with self._changed:
            self._ended.append((size, report))
            self._changed.notify_all()

    def _collect_reports(self) -> None:
        """Turn ended shards into reports, on this thread: the engine's thread must not be delayed."""
        while self._ended:
            size, make_report = self._ended.popleft()
            report = make_report()
            self._throughput.shard_ended(size.tokens, scored=report.outcome is ShardOutcome.SCORED)
            with self._changed:
                self._running[size.work_class] -= 1
                if size.work_class is WorkClass.BATCH:
                    self._batch_pairs -= size.pairs
                self._done.append(report)

    def _report_and_dequeue(self, received: Sequence[WakeUp]) -> list[WakeUp]:
        """Report ended shards, and dequeue messages beside those `received`, in one round trip.

        Without reports and received messages the queues are empty, and no round trip is made.
        """
        self._collect_reports()
        reports = list(self._done)
        if not reports and not received:
            return []
        wake_ups = self._reporter.finish_and_dequeue(reports, self._free_slots().without(received))
        for report in reports:
            self._leases.drop(report.lease)
            if report.lease == self._suspect_lease:
                self._suspect_lease = None
            self._done.popleft()
        return wake_ups
