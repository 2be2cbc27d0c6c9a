"""Reads from Redis what is exposed at each scrape."""

import redis.asyncio

from api.metrics.pools import StoreReadings
from api.pool_monitor import PoolMonitor
from shared.keys import job_keys
from shared.ledger.batch_ledger import BatchLedger
from shared.ledger.delivery_ledger import DeliveryLedger
from shared.metrics.pool_totals import read_totals
from shared.store.client import store_errors


class StoreReader:
    """Reads the state of the deployment. Raises StoreUnavailable."""

    def __init__(
        self, client: redis.asyncio.Redis, pools: PoolMonitor, batches: BatchLedger, deliveries: DeliveryLedger
    ) -> None:
        self._client = client
        self._pools = pools
        self._batches = batches
        self._deliveries = deliveries

    async def read(self) -> StoreReadings:
        """What is exposed now, in five round trips."""
        pools = await self._pools.fetch()
        used, limit = self._pools.store_memory
        with store_errors():
            totals = await read_totals(self._client, list(pools))
            dead_letters = int(await self._client.llen(job_keys.DEAD_LETTERS))
        return StoreReadings(
            pools=pools,
            totals=totals,
            dead_letters=dead_letters,
            unfinished_batches=len(await self._batches.open_batches()),
            memory=used,
            memory_limit=limit or None,
            webhooks=await self._deliveries.counts(),
        )
