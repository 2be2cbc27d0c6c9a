"""Takes shards and hands their scores in, many at once: the worker's only way to the ledger and the queues.

A message is a wake_up. Celery hears the first one; while this worker is busy, and for a moment after, the dispatcher
asks the queues itself and takes every wake_up that waits: under load a shard costs a share of a round trip, not a
Celery message of its own. Whatever a wake_up says, the claim decides. A wake_up that is lost on the way costs
seconds, never a shard: the reconciler rings again.
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
from worker.dispatch.result_reporter import Remember, ResultReporter
from worker.dispatch.throughput import ThroughputMeter

logger = logging.getLogger(__name__)

LINGER_SECONDS = 1.0
"""How long the dispatcher stays at the queues after its last shard, before Celery listens again."""
_LOOK_UP_SECONDS = 0.1
"""How soon it is noticed that this worker is to stop."""
BATCH_PAIRS = 256
"""Batch work in hand beyond which no more is taken: enough to keep an engine busy while the next is fetched. What is
not in hand can be scored elsewhere, and is not in the way of what is wanted now."""
BATCH_SHARDS_AT_ONCE = 8
UNREADABLE = JobFailure(ScoringFailed.code, "the worker cannot read this job")


class _Size(NamedTuple):
    """How much room a shard takes."""

    work_class: WorkClass
    pairs: int
    tokens: int


class Dispatcher:
    """One worker's traffic in shards."""

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
        remember: Remember | None = None,
        pace: ThroughputMeter | None = None,
    ) -> None:
        """`concurrency`: shards in hand at once (0: only what it is rung for); batch work leaves `reserved` of it.

        `remember` is told, on a thread of its own, of every score that was accepted; `pace` of what is in hand.
        """
        self._ledger = ledger
        self._executor = executor
        self._leases = leases
        self._worker = worker
        self._concurrency = concurrency
        self._batch_limit = concurrency - reserved
        self._linger_seconds = linger_seconds
        self._pace = pace or ThroughputMeter()
        self._reporter = ResultReporter(ledger, remember)
        self._ear = QueueListener(ledger, self._notice)
        self._serving = threading.Lock()
        self._closing = threading.Event()
        self._changed = threading.Condition()
        self._running: Counter[WorkClass] = Counter()
        self._batch_pairs = 0
        self._ended: deque[tuple[_Size, Callable[[], ShardReport]]] = deque()
        self._done: deque[ShardReport] = deque()
        self._suspects: deque[WakeUp] = deque()
        """Shards that may bring a worker down: none is claimed before it can run without company."""
        self._alone: ShardLease | None = None
        """The one of them that is in hand."""

    def close(self) -> None:
        """From now on claim nothing; what is in hand goes on."""
        self._closing.set()

    def leave(self) -> None:
        """Claim nothing, and do not wait long for a Redis that is away either."""
        self._closing.set()
        self._reporter.leave()

    def finish(self) -> None:
        """When nothing is in hand any more: wait for what is done beside it."""
        self._reporter.close()

    def run(self, job_id: str, shard: int, work_class: WorkClass) -> None:
        """Score the shard, and what else waits, until nothing is left. Raises StoreUnavailable when it was not claimed.

        One call serves at a time; another one waits for its turn.
        """
        with self._serving:
            self._serve(WakeUp(job_id, shard, work_class))

    def _serve(self, first: WakeUp) -> None:
        try:
            self._start([first], patient=False)
            while True:
                while self._in_hand():
                    self._wait()
                    heard = self._ear.take(self._room())
                    self._start(heard + self._exchange(heard))
                wake_ups = self._linger()
                if not wake_ups:
                    return
                self._start(wake_ups)
        finally:
            # What was heard and is not looked at, as when the worker stops, is for somebody else.
            self._ledger.enqueue(self._ear.stop() + list(self._suspects))
            self._suspects.clear()

    def _in_hand(self) -> bool:
        # Locked: a shard goes from the running to the done in two steps.
        with self._changed:
            return bool(self._running.total() or self._done or (self._suspects and not self._closing.is_set()))

    def _wait(self) -> None:
        """Until something is done or heard, listening if there is room."""
        room = self._listen_if_there_is_room()
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._done or self._ear.has_heard(room), _LOOK_UP_SECONDS)

    def _listen_if_there_is_room(self) -> FreeSlots:
        room = self._room()
        if room.shards:
            self._ear.listen(batch=room.batch > 0)
        else:
            self._ear.hush()
        # Heard too late: another worker may have room.
        self._ledger.enqueue(self._ear.refuse(room))
        return room

    def _notice(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _room(self) -> FreeSlots:
        """How many shards may come."""
        if self._suspects or self._alone or self._closing.is_set():
            return NO_FREE_SLOTS
        room = max(0, self._concurrency - self._running.total())
        batch = max(0, self._batch_limit - self._running[WorkClass.BATCH])
        if self._batch_pairs >= BATCH_PAIRS:
            batch = 0
        return FreeSlots(room, min(room, batch, BATCH_SHARDS_AT_ONCE))

    def _linger(self) -> list[WakeUp]:
        """Stay at the queues for a moment with empty hands; answers what was heard."""
        until = time.monotonic() + self._linger_seconds
        while (room := self._room()).shards and (left := until - time.monotonic()) > 0:
            self._listen_if_there_is_room()
            with self._changed:
                if self._changed.wait_for(lambda: self._ear.has_heard(room), min(left, _LOOK_UP_SECONDS)):
                    break
        else:
            # A wake_up that it hears in its last moment must not be left until the next one.
            self._ear.hush(wait=True)
        return self._ear.take(self._room())

    def _start(self, wake_ups: Sequence[WakeUp], *, patient: bool = True) -> None:
        """Claim and begin. A shard that must have no company is claimed when it has none."""
        self._claim(wake_ups, alone=False, patient=patient)
        if self._suspects and not self._running.total() and not self._done:
            self._claim([self._suspects.popleft()], alone=True, patient=patient)

    def _claim(self, wake_ups: Sequence[WakeUp], *, alone: bool, patient: bool) -> None:
        """Not `patient`: raises StoreUnavailable.

        A claim whose answer was lost may have taken its shards: left so, they would be charged for a crash. It is
        repeated under the same tokens.
        """
        if not wake_ups:
            return
        if self._closing.is_set():
            self._ledger.enqueue(wake_ups)
            return
        leases = [ShardLease(wake_up.job_id, wake_up.shard, f"{self._worker}:{uuid4().hex}") for wake_up in wake_ups]
        call = partial(self._ledger.claim_all, leases, alone=alone)
        claims = self._reporter.despite_outages(call) if patient else call()
        if claims is None:
            logger.warning("%d shards could not be claimed, they are rung for again", len(leases))
            return
        for wake_up, lease, claim in zip(wake_ups, leases, claims, strict=True):
            if claim.verdict is ClaimVerdict.RUN:
                if alone:
                    self._alone = lease
                self._begin(claim, self._leases.hold(lease), wake_up.work_class)
            elif claim.verdict is ClaimVerdict.UNREADABLE:
                self._leases.hold(lease)
                # Another worker may be of a version that can read it.
                self._done.append(ShardReport(lease, wake_up.work_class, ShardOutcome.RETRY, failure=UNREADABLE))
            elif claim.verdict is ClaimVerdict.ALONE:
                self._suspects.append(wake_up)
            else:
                logger.debug("shard %s/%d: %s, nothing to do", wake_up.job_id, wake_up.shard, claim.verdict)

    def _begin(self, claim: Claim, held: HeldShard, work_class: WorkClass) -> None:
        size = _Size(work_class, len(claim.request.documents) if claim.request else 0, claim.tokens)
        if self._reporter.leaving:
            # It was claimed while the worker left, after all the others were given back.
            held.release()
        with self._changed:
            self._running[work_class] += 1
            if work_class is WorkClass.BATCH:
                self._batch_pairs += size.pairs
        self._pace.take(size.tokens)
        self._executor.begin(claim, held, work_class, partial(self._end, size))

    def _end(self, size: "_Size", report: Callable[[], ShardReport]) -> None:
        with self._changed:
            self._ended.append((size, report))
            self._changed.notify_all()

    def _gather(self) -> None:
        """Turn what has ended into reports; here, and not on the engine's thread, which has better things to do."""
        while self._ended:
            size, make_report = self._ended.popleft()
            report = make_report()
            self._pace.drop(size.tokens, scored=report.outcome is ShardOutcome.SCORED)
            with self._changed:
                self._running[size.work_class] -= 1
                if size.work_class is WorkClass.BATCH:
                    self._batch_pairs -= size.pairs
                self._done.append(report)

    def _exchange(self, heard: Sequence[WakeUp]) -> list[WakeUp]:
        """Hand in what is done and take what waits beside what was heard, in one round trip, whenever Redis is there.

        With nothing done and nothing heard, nothing waits.
        """
        self._gather()
        reports = list(self._done)
        if not reports and not heard:
            return []
        wake_ups = self._reporter.finish_and_dequeue(reports, self._room().without(heard))
        for report in reports:
            self._leases.drop(report.lease)
            if report.lease == self._alone:
                self._alone = None
            self._done.popleft()
        return wake_ups
