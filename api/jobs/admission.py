"""Computes how much work may be pending when a job is accepted, from the pools' measured throughput. Stores nothing.

submit.lua checks these limits. Only accepted work starts workers, so a pool without a ready worker never refuses work
because of the time that a start takes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from api.pool_monitor import PoolMonitor
from shared.contracts import WorkClass
from shared.errors import Overloaded
from shared.ledger.submission import PendingLimits
from shared.models import ModelSpec
from shared.owner_limits import DEFAULT_TERMS, OwnerTerms
from shared.pools.signals import PoolSignals

RETRY_AFTER_SECONDS = 1
"""After this process had too many waiting callers."""
MAX_MEMORY_SHARE = 0.95
"""The share of Redis's `maxmemory` above which jobs are refused: what is accepted needs room for its results."""
RETRY_AFTER_FULL_SECONDS = 10


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """The operator's limits: pending tokens and jobs of one pool, and callers that wait in one API process."""

    max_pending_tokens: int
    max_pending_jobs: int
    max_waiting: int


class Admission:
    """The limits of new jobs, and the number of callers that wait in this process."""

    def __init__(
        self,
        pools: PoolMonitor,
        limits: AdmissionLimits,
        terms_of: Callable[[str], OwnerTerms] = lambda _: DEFAULT_TERMS,
    ) -> None:
        """`terms_of` returns the limits and the weight of an owner."""
        self.terms_of = terms_of
        self._pools = pools
        self._limits = limits
        self._waiting = 0

    def pending_limits(self, spec: ModelSpec, work_class: WorkClass, wait_seconds: float | None) -> PendingLimits:
        """The limits of a job whose caller waits for `wait_seconds`; None: as long as the model's pool allows."""
        signals = self._pools.pool(spec.name).signals
        rate = pool_throughput(signals, spec.pool.max)
        ahead = None
        if work_class is WorkClass.INTERACTIVE and rate is not None:
            seconds = spec.pool.max_wait_seconds if wait_seconds is None else wait_seconds
            ahead = int(tokens_within(seconds, signals, spec.pool.max))
        return PendingLimits(ahead, self._limits.max_pending_tokens, self._limits.max_pending_jobs, rate)

    def require_memory(self) -> None:
        """Raise Overloaded when Redis is almost full."""
        if self._pools.store_memory_share > MAX_MEMORY_SHARE:
            raise Overloaded("the job store is almost full", retry_after=RETRY_AFTER_FULL_SECONDS, reason="memory")

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count a waiting caller during the block. Raises Overloaded when this process has too many."""
        if self._waiting >= self._limits.max_waiting:
            raise Overloaded(
                f"at most {self._limits.max_waiting} requests may wait in one process of the API",
                retry_after=RETRY_AFTER_SECONDS,
                reason="waiting",
            )
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1


def pool_throughput(signals: PoolSignals, max_workers: int) -> float | None:
    """The tokens per second of the pool when all workers that it may have are ready; None when not measured."""
    if not signals.tokens_per_second:
        return None
    return signals.tokens_per_second * max(_workers_up(signals), max_workers)


def tokens_within(seconds: float, signals: PoolSignals, max_workers: int) -> float:
    """The tokens that the pool scores within `seconds`. Further workers help after a worker's start.

    Without a ready worker the time of the start does not count.
    """
    rate, up = signals.tokens_per_second or 0.0, _workers_up(signals)
    more = max(0, max_workers - up)
    if not signals.ready:
        return rate * seconds * (up + more)
    start = signals.start_seconds
    return rate * (up * seconds + more * max(0.0, seconds - start if start is not None else 0.0))


def _workers_up(signals: PoolSignals) -> int:
    return signals.ready + signals.starting
