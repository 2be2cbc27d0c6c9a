"""Which models can be scored now: a snapshot of the workers' heartbeats, refreshed in the background.

A request reads the snapshot and costs no round trip. It is a hint: the ledger accepts jobs for a pool without workers.
"""

import asyncio
import logging
import time

import redis.asyncio
from redis.exceptions import RedisError

from shared import keys
from shared.heartbeats import PoolHealth, summarize

logger = logging.getLogger(__name__)

REFRESH_SECONDS = 1.0
_UNKNOWN = PoolHealth(ready=0, starting=0, failure=None)


class PoolWatch:
    """The health of every served model's pool. `run` keeps it fresh."""

    def __init__(self, client: redis.asyncio.Redis, models: list[str]) -> None:
        self._client = client
        self._pools: dict[str, PoolHealth] = dict.fromkeys(models, _UNKNOWN)
        self.store_reachable = False

    def health(self, model: str) -> PoolHealth:
        return self._pools[model]

    def all(self) -> dict[str, PoolHealth]:
        return dict(self._pools)

    async def run(self) -> None:
        """Refresh until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(REFRESH_SECONDS)

    async def refresh(self) -> None:
        """Read every pool's heartbeats in one round trip; keeps the old snapshot when Redis is away."""
        try:
            async with self._client.pipeline(transaction=False) as pipe:
                for model in self._pools:
                    pipe.hgetall(keys.workers(model))
                answers = await pipe.execute()
        except (RedisError, OSError) as error:
            if self.store_reachable:
                logger.warning("Redis cannot be reached: %.200s", error)
            self.store_reachable = False
            return
        self.store_reachable = True
        now = time.time()
        self._pools = {model: summarize(beats, now) for model, beats in zip(self._pools, answers, strict=True)}
