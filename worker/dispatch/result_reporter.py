"""Reports results to the ledger, several per round trip, and retries while Redis is unreachable.

Owns how long a worker waits for an unreachable Redis. Passes scores to the score cache after they are reported.
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
from shared.ledger.verdicts import ClaimedShard, ClaimRequest, FinishVerdict
from shared.ledger.worker_ledger import WorkerLedger
from worker.dispatch.executor import ShardOutcome, ShardReport

logger = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 2.0
"""How long a shard waits after a transient engine error."""
FINAL_RETRY_SECONDS = 3.0
"""How long a stopping worker keeps trying to reach Redis."""
_STORE_RETRY_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0)

Result = TypeVar("Result")
CacheScores = Callable[[Sequence[tuple[RerankRequest, ShardScores]]], None]
OnReport = Callable[[ShardReport, FinishVerdict], None]


class ResultReporter:
    """The reporter of one dispatcher."""

    def __init__(
        self,
        ledger: WorkerLedger,
        cache_scores: CacheScores | None = None,
        on_report: OnReport = lambda report, verdict: None,
    ) -> None:
        """`cache_scores` is called, on a separate thread, with all reported scores; `on_report` with each result."""
        self._ledger = ledger
        self._on_report = on_report
        self._cache_scores = cache_scores
        self._cache_thread = ThreadPoolExecutor(1, thread_name_prefix="score-cache")
        self._retry_until = math.inf

    @property
    def stopping(self) -> bool:
        return self._retry_until < math.inf

    def stop_waiting(self) -> None:
        """Stop retrying an unreachable Redis after FINAL_RETRY_SECONDS."""
        self._retry_until = time.monotonic() + FINAL_RETRY_SECONDS

    def close(self) -> None:
        """Wait until all reported scores are cached."""
        self._cache_thread.shutdown()

    def retry_during_outages(self, call: Callable[[], Result]) -> Result | None:
        """Call until it succeeds; returns None when this worker stops before Redis is back."""
        attempt = 0
        while True:
            try:
                return call()
            except StoreUnavailable:
                if time.monotonic() >= self._retry_until:
                    return None
                time.sleep(_STORE_RETRY_SECONDS[min(attempt, len(_STORE_RETRY_SECONDS) - 1)])
                attempt += 1

    def finish_and_claim(self, reports: Sequence[ShardReport], request: ClaimRequest | None) -> list[ClaimedShard]:
        """Report the results, and claim what is requested.

        After lost replies the request is repeated: its claims may have succeeded, and would later count as crashes.
        """
        claimed = self.retry_during_outages(partial(self._finish, reports, request))
        without_scores = [report for report in reports if report.scores is None]
        # Retry each call separately, so that reports already stored are not sent again.
        reported = claimed is not None and all(
            self.retry_during_outages(partial(self._report, report)) for report in without_scores
        )
        if not reported and reports:
            logger.warning("some shards are not reported, their leases expire", extra={"shards": len(reports)})
        if claimed is None and request is not None:
            logger.warning("the next shards could not be claimed, the reconciler sends their messages again")
        return claimed or []

    def _finish(self, reports: Sequence[ShardReport], request: ClaimRequest | None) -> list[ClaimedShard]:
        scored = [(report, report.scores) for report in reports if report.scores is not None]
        finishes = [(report.lease, scores, report.work_class) for report, scores in scored]
        verdicts, claimed = self._ledger.finish_and_claim(finishes, request)
        for (report, _), verdict in zip(scored, verdicts, strict=True):
            self._count(report, verdict)
        known = [(report.request, scores) for report, scores in scored if report.request is not None]
        if self._cache_scores is not None and known:
            # On another thread: no caller waits for the cache.
            self._cache_thread.submit(self._cache_scores, known)
        return claimed

    def _report(self, report: ShardReport) -> FinishVerdict:
        """Report an outcome other than SCORED: rare, one round trip each."""
        match report.outcome:
            case ShardOutcome.RELEASED:
                verdict = self._ledger.release(report.lease, report.work_class)
            case ShardOutcome.RETRY if report.failure:
                verdict = self._ledger.retry_later(report.lease, RETRY_AFTER_SECONDS, report.failure)
            case ShardOutcome.FAILED if report.failure:
                verdict = self._ledger.fail(report.lease, report.failure)
            case _:
                verdict = FinishVerdict.ENDED
        self._count(report, verdict)
        return verdict

    def _count(self, report: ShardReport, verdict: FinishVerdict) -> None:
        self._on_report(report, verdict)
        if verdict is not FinishVerdict.ACCEPTED:
            logger.info("a report was rejected", extra=report.lease.log_fields(verdict=verdict))
