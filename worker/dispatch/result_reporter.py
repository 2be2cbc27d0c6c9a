"""Hands reports in to the ledger, many in one round trip, however long Redis is away.

Owns the patience of a worker with a Redis that is away, and tells the score cache what was accepted.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from shared.contracts import RerankRequest, ShardScores
from shared.errors import StoreUnavailable
from shared.ledger.verdicts import FinishVerdict, FreeSlots
from shared.ledger.worker_ledger import WorkerLedger
from shared.queue.messages import WakeUp
from worker.dispatch.executor import ShardOutcome, ShardReport

logger = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 2.0
"""How long a shard rests after its engine asked for another try."""
LAST_TRIES_SECONDS = 3.0
"""How long a worker that leaves still tries to reach a Redis that is away."""
_STORE_RETRY_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0)

Answer = TypeVar("Answer")
Remember = Callable[[Sequence[tuple[RerankRequest, ShardScores]]], None]


class ResultReporter:
    """One dispatcher's."""

    def __init__(self, ledger: WorkerLedger, remember: Remember | None = None) -> None:
        """`remember` is told, on a thread of its own, of every score that was handed in."""
        self._ledger = ledger
        self._remember = remember
        self._memory = ThreadPoolExecutor(1, thread_name_prefix="memory")
        self._patient_until = math.inf

    @property
    def leaving(self) -> bool:
        return self._patient_until < math.inf

    def leave(self) -> None:
        """From now on do not wait long for a Redis that is away."""
        self._patient_until = time.monotonic() + LAST_TRIES_SECONDS

    def close(self) -> None:
        """Wait until all that was accepted is remembered."""
        self._memory.shutdown()

    def despite_outages(self, call: Callable[[], Answer]) -> Answer | None:
        """What it answers, however long Redis is away; None when this worker leaves before it is back."""
        attempt = 0
        while True:
            try:
                return call()
            except StoreUnavailable:
                if time.monotonic() >= self._patient_until:
                    return None
                time.sleep(_STORE_RETRY_SECONDS[min(attempt, len(_STORE_RETRY_SECONDS) - 1)])
                attempt += 1

    def finish_and_dequeue(self, reports: Sequence[ShardReport], room: FreeSlots) -> list[WakeUp]:
        """Hand the reports in, and take as many wake_ups as there is room for."""
        wake_ups = self.despite_outages(partial(self._hand_in, reports, room))
        others = [report for report in reports if report.scores is None]
        # One after another: what was taken and told before stays so when Redis goes away between two of them.
        told = wake_ups is not None and all(self.despite_outages(partial(self._tell, report)) for report in others)
        if not told and reports:
            logger.warning("of %d shards some are unreported, their leases will run out", len(reports))
        return wake_ups or []

    def _hand_in(self, reports: Sequence[ShardReport], room: FreeSlots) -> list[WakeUp]:
        scored = [(report, report.scores) for report in reports if report.scores is not None]
        finishes = [(report.lease, scores, report.work_class) for report, scores in scored]
        verdicts, wake_ups = self._ledger.finish_and_dequeue(finishes, room)
        for (report, _), verdict in zip(scored, verdicts, strict=True):
            _note(report, verdict)
        known = [(report.request, scores) for report, scores in scored if report.request is not None]
        if self._remember is not None and known:
            # Nobody waits for it.
            self._memory.submit(self._remember, known)
        return wake_ups

    def _tell(self, report: ShardReport) -> FinishVerdict:
        """What is not a finish is rare, and told on its own."""
        match report.outcome:
            case ShardOutcome.GIVEN_BACK:
                verdict = self._ledger.release(report.lease, report.work_class)
            case ShardOutcome.RETRY if report.failure:
                verdict = self._ledger.retry_later(report.lease, RETRY_AFTER_SECONDS, report.failure)
            case ShardOutcome.FAILED if report.failure:
                verdict = self._ledger.fail(report.lease, report.failure)
            case _:
                verdict = FinishVerdict.ENDED
        _note(report, verdict)
        return verdict


def _note(report: ShardReport, verdict: FinishVerdict) -> None:
    if verdict is not FinishVerdict.ACCEPTED:
        logger.info("shard %s/%d: %s", report.lease.job_id, report.lease.shard, verdict)
