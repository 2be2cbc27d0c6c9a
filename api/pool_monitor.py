"""What is known of every model's pool: its signals, what they ask for, and so whether and when it can score.

A request reads a snapshot that is refreshed in the background, and costs no round trip. It is a hint: the ledger
accepts jobs for a pool without workers, and that is what wakes one.
"""

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import redis.asyncio

from shared.errors import StoreUnavailable
from shared.models import ModelSpec
from shared.pools.heartbeats import FAILURE_SECONDS, PoolHealth, WorkerState
from shared.pools.scaling import Decision, ScalingState, decide
from shared.pools.signals import ClassLoad, PoolSignals, read_signals
from shared.store.client import store_errors

logger = logging.getLogger(__name__)

REFRESH_SECONDS = 1.0
RETRY_AFTER_BUSY_SECONDS = 1
RETRY_AFTER_UNKNOWN_SECONDS = 10
"""When nobody knows how long a start takes."""


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """One pool as it was seen last, and how many workers that asks for."""

    signals: PoolSignals
    decision: Decision


@dataclass(frozen=True, slots=True)
class StartFailure:
    """Why a pool has no worker. `at` is Unix seconds; `retry_in` seconds until a start may be tried again, 0: now."""

    at: float
    reason: str
    retry_in: float

    @property
    def retry_after(self) -> int:
        """Whole seconds after which it is worth asking again."""
        return math.ceil(self.retry_in) if self.retry_in else RETRY_AFTER_UNKNOWN_SECONDS


class PoolMonitor:
    """Every served model's pool. `run` keeps what it says fresh."""

    def __init__(self, client: redis.asyncio.Redis, specs: Sequence[ModelSpec]) -> None:
        self._client = client
        self._settings = {spec.name: spec.pool for spec in specs}
        self._pools: dict[str, PoolSnapshot] = {}
        self._judge({name: _unseen(name) for name in self._settings})
        self.store_reachable = False

    def pool(self, model: str) -> PoolSnapshot:
        return self._pools[model]

    def all(self) -> dict[str, PoolSnapshot]:
        return dict(self._pools)

    def start_failure(self, model: str) -> StartFailure | None:
        """The failed start for which the pool has no worker; None while one is up or coming, or none has failed."""
        pool, now = self._pools[model], time.time()
        signals, retry_at = pool.signals, pool.decision.retry_at
        failed_at = signals.failed_at or 0.0
        recent = signals.failure if now - failed_at < FAILURE_SECONDS else None
        if recent is None or not PoolHealth(signals.ready, signals.starting, recent).down:
            return None
        return StartFailure(failed_at, recent, max(0.0, retry_at - now) if retry_at else 0.0)

    def retry_after(self, model: str) -> int:
        """Whole seconds until a job that waits now is likely to be under way: what is left of a worker's start."""
        signals = self._pools[model].signals
        if signals.ready:
            return RETRY_AFTER_BUSY_SECONDS
        if signals.start_seconds is None:
            return RETRY_AFTER_UNKNOWN_SECONDS
        began = [beat.started_at for beat in signals.workers if beat.state is WorkerState.STARTING]
        passed = max(0.0, time.time() - min(began)) if began else 0.0
        return max(RETRY_AFTER_BUSY_SECONDS, math.ceil(signals.start_seconds - passed))

    async def run(self) -> None:
        """Refresh until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(REFRESH_SECONDS)

    async def refresh(self) -> None:
        """Look; keeps the old snapshot when Redis is away."""
        try:
            await self.look()
        except StoreUnavailable as error:
            if self.store_reachable:
                logger.warning("Redis cannot be reached: %.200s", error.__cause__)
            self.store_reachable = False

    async def look(self) -> dict[str, PoolSnapshot]:
        """Every pool as it is now, in one round trip. Raises StoreUnavailable."""
        with store_errors():
            self._judge(await read_signals(self._client, list(self._settings), time.time()))
        self.store_reachable = True
        return self.all()

    def _judge(self, seen: dict[str, PoolSignals]) -> None:
        now = time.time()
        for model, signals in seen.items():
            # Without a memory: what one API process answers, any other one does.
            self._pools[model] = PoolSnapshot(signals, decide(signals, self._settings[model], ScalingState(), now))


def _unseen(model: str) -> PoolSignals:
    return PoolSignals(model, ClassLoad(), ClassLoad(), 0.0, None, shards=0, starting=0, ready=0, draining=0)
