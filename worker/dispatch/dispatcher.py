"""Claims shards, has them scored, and reports the results, several per round trip.

Celery receives the first wake-up message. While the worker is busy, and for a moment afterwards, the dispatcher reads
the queues itself, so that under load a shard costs a share of a round trip instead of a Celery message. A message only
wakes: the ledger's order decides which shards are claimed. A lost message costs seconds, because the reconciler sends
it again.
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
from shared.ledger.verdicts import (
    NO_FREE_SLOTS,
    Claim,
    ClaimedShard,
    ClaimRequest,
    ClaimVerdict,
    FreeSlots,
    ShardLease,
)
from shared.ledger.worker_ledger import WorkerLedger
from shared.queue.messages import WakeUp
from worker.dispatch.executor import Executor, ShardOutcome, ShardReport
from worker.dispatch.leases import HeldShard, LeaseKeeper
from worker.dispatch.listener import QueueListener
from worker.dispatch.result_reporter import CacheScores, OnReport, ResultReporter
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
        on_report: OnReport = lambda report, verdict: None,
    ) -> None:
        """`concurrency`: shards in progress at once (0: only one for each `run`), `reserved` of them interactive.

        `cache_scores` is called, on a separate thread, with all reported scores; `on_report` with each shard's result,
        accepted or not; `throughput` measures the work.
        """
        self._ledger = ledger
        self._executor = executor
        self._leases = leases
        self._worker = worker
        self._concurrency = concurrency
        self._batch_limit = concurrency - reserved
        self._linger_seconds = linger_seconds
        self._throughput = throughput or ThroughputMeter()
        self._reporter = ResultReporter(ledger, cache_scores, on_report)
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
        """Score everything that is queued; the message that named this shard is received.

        Raises StoreUnavailable when nothing could be claimed at first. Concurrent calls run one after the other.
        """
        with self._serving:
            self._serve(WakeUp(job_id, shard, work_class))

    def _serve(self, first: WakeUp) -> None:
        try:
            self._claim_first(first)
            while True:
                while self._has_work():
                    self._wait()
                    self._report_and_claim(self._listener.take(self._free_slots()))
                received = self._linger()
                if not received:
                    return
                self._report_and_claim(received)
        finally:
            # Requeue messages that were received but not processed, for example because the worker stops.
            self._ledger.enqueue(self._listener.stop())
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

    def _claim_first(self, first: WakeUp) -> None:
        """Claim one shard, the next one. Raises StoreUnavailable.

        Only one: nobody repeats this claim when its reply is lost, and the shard then counts as crashed.
        """
        if self._closing.is_set():
            self._ledger.enqueue([first])
            return
        batch = max(self._free_slots().batch, int(first.work_class is WorkClass.BATCH))
        request = self._claim_request(FreeSlots(1, min(batch, 1)), [first])
        _, claimed = self._ledger.finish_and_claim([], request)
        self._begin_all(claimed)

    def _claim_request(self, slots: FreeSlots, received: Sequence[WakeUp]) -> ClaimRequest:
        return ClaimRequest(
            self._worker, f"{self._worker}:{uuid4().hex}", slots, received, is_idle=not self._running.total()
        )

    def _begin_all(self, claimed: Sequence[ClaimedShard]) -> None:
        """Start scoring. A shard that must run alone is claimed, or scored, when nothing else runs."""
        for lease, work_class, claim in claimed:
            if claim.verdict is ClaimVerdict.RUN:
                if claim.alone:
                    self._suspect_lease = lease
                self._begin(claim, self._leases.hold(lease), work_class)
            elif claim.verdict is ClaimVerdict.UNREADABLE:
                self._leases.hold(lease)
                # A worker of another version may be able to decode it.
                self._done.append(ShardReport(lease, work_class, ShardOutcome.RETRY, failure=UNREADABLE))
            elif claim.verdict is ClaimVerdict.ALONE:
                self._suspects.append(WakeUp(lease.job_id, lease.shard, work_class))
            else:
                logger.debug("nothing to do for a shard", extra=lease.log_fields(verdict=claim.verdict))
        if self._suspects and not self._running.total() and not self._done and not self._closing.is_set():
            self._claim_suspect(self._suspects.popleft())

    def _claim_suspect(self, suspect: WakeUp) -> None:
        """Claim a shard that must run alone. Retries with the same token while Redis is unreachable.

        A claim whose reply was lost may have succeeded, and its shard would later count as crashed.
        """
        lease = ShardLease(suspect.job_id, suspect.shard, f"{self._worker}:{uuid4().hex}")
        claim = self._reporter.retry_during_outages(partial(self._ledger.claim, lease, alone=True))
        if claim is not None:
            self._begin_all([ClaimedShard(lease, suspect.work_class, claim)])

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

    def _report_and_claim(self, received: Sequence[WakeUp]) -> None:
        """Report ended shards and claim the next ones, in one round trip; `received` messages announce some.

        Without reports and received messages nothing waits, and no round trip is made.
        """
        self._collect_reports()
        reports = list(self._done)
        request = None
        if reports or received:
            slots = self._free_slots()
            if slots.shards:
                request = self._claim_request(slots, received)
            else:
                self._ledger.enqueue(received)
        claimed = self._reporter.finish_and_claim(reports, request) if reports or request else []
        for report in reports:
            self._leases.drop(report.lease)
            if report.lease == self._suspect_lease:
                self._suspect_lease = None
            self._done.popleft()
        self._begin_all(claimed)
