"""Monitors every model's pool: its signals, the workers it needs, and whether and when it can score.

A background task refreshes the snapshots, so that a request reads them without a round trip. A snapshot is a hint:
the ledger accepts jobs for a pool without workers, and those jobs make a worker start.
"""

import asyncio
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
"""While the duration of a start is unknown."""


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """The last known state of a pool, and the number of workers it needs."""

    signals: PoolSignals
    decision: Decision


@dataclass(frozen=True, slots=True)
class StartFailure:
    """The failed start that left a pool without workers.

    `at` is Unix seconds. `retry_in` is the seconds until the next start may be tried, 0 when it may be tried now.
    """

    at: float
    reason: str
    retry_in: float

    @property
    def retry_after(self) -> int:
        """The value of the Retry-After header, in whole seconds."""
        return math.ceil(self.retry_in) if self.retry_in else RETRY_AFTER_UNKNOWN_SECONDS


class PoolMonitor:
    """Snapshots of every served model's pool; `run` refreshes them."""

    def __init__(self, client: redis.asyncio.Redis, specs: Sequence[ModelSpec]) -> None:
        self._client = client
        self._settings = {spec.name: spec.pool for spec in specs}
        self._pools: dict[str, PoolSnapshot] = {}
        self._update({name: _no_signals(name) for name in self._settings})
        self.store_reachable = False
        self.store_memory_share = 0.0
        """The used share of Redis's `maxmemory`; 0 without a limit, or when Redis evicts keys instead of refusing."""
        self.store_memory = (0, 0)
        """The bytes that Redis uses, and its `maxmemory`, 0 without a limit."""

    def pool(self, model: str) -> PoolSnapshot:
        return self._pools[model]

    def all(self) -> dict[str, PoolSnapshot]:
        return dict(self._pools)

    def start_failure(self, model: str) -> StartFailure | None:
        """The recent failed start of a pool without workers; None while a worker is ready or starting."""
        pool, now = self._pools[model], time.time()
        signals, retry_at = pool.signals, pool.decision.retry_at
        failed_at = signals.failed_at or 0.0
        recent = signals.failure if now - failed_at < FAILURE_SECONDS else None
        if recent is None or not PoolHealth(signals.ready, signals.starting, recent).down:
            return None
        return StartFailure(failed_at, recent, max(0.0, retry_at - now) if retry_at else 0.0)

    def retry_after(self, model: str) -> int:
        """The value of the Retry-After header for a job that is not done yet, in whole seconds.

        While no worker is ready, this is the estimated remaining time of a worker's start.
        """
        signals = self._pools[model].signals
        if signals.ready:
            return RETRY_AFTER_BUSY_SECONDS
        if signals.start_seconds is None:
            return RETRY_AFTER_UNKNOWN_SECONDS
        started = [beat.started_at for beat in signals.workers if beat.state is WorkerState.STARTING]
        elapsed = max(0.0, time.time() - min(started)) if started else 0.0
        return max(RETRY_AFTER_BUSY_SECONDS, math.ceil(signals.start_seconds - elapsed))

    async def run(self) -> None:
        """Refresh until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(REFRESH_SECONDS)

    async def refresh(self) -> None:
        """Update the snapshots; keeps the old ones when Redis is unreachable."""
        try:
            await self.fetch()
        except StoreUnavailable as error:
            if self.store_reachable:
                logger.warning("Redis is unreachable", extra={"error": error.__cause__})
            self.store_reachable = False

    async def fetch(self) -> dict[str, PoolSnapshot]:
        """Update and return the snapshots. Raises StoreUnavailable."""
        with store_errors():
            self._update(await read_signals(self._client, list(self._settings), time.time()))
            memory = await self._client.info("memory")
        self.store_memory = int(memory.get("used_memory", 0)), int(memory.get("maxmemory", 0))
        self.store_memory_share = _memory_share(memory)
        self.store_reachable = True
        return self.all()

    def _update(self, signals_by_model: dict[str, PoolSignals]) -> None:
        now = time.time()
        for model, signals in signals_by_model.items():
            # An empty ScalingState, so that every API process makes the same decision.
            self._pools[model] = PoolSnapshot(signals, decide(signals, self._settings[model], ScalingState(), now))


def _memory_share(info: Mapping[str, Any]) -> float:
    limit = int(info.get("maxmemory", 0))
    return int(info.get("used_memory", 0)) / limit if limit and info.get("maxmemory_policy") == "noeviction" else 0.0


def _no_signals(model: str) -> PoolSignals:
    return PoolSignals(model, ClassLoad(), ClassLoad(), 0.0, None, shards=0, starting=0, ready=0, draining=0)
