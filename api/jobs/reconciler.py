"""Looks after what nobody else does: leases that ran out, doorbells that nobody heard, deadlines that passed.

Every API process runs one; a lock in Redis lets one of them work at a time. Two at once would do no harm: each round is
a script that may run twice.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Sequence
from secrets import token_hex

import redis.asyncio

from shared.errors import StoreDamaged, StoreUnavailable
from shared.keys import queue_keys, service_keys
from shared.ledger.job_ledger import JobLedger
from shared.queue.messages import MessageBuilder, WakeUp
from shared.store.client import store_errors
from shared.store.scripts import script_source

logger = logging.getLogger(__name__)

ROUND_SECONDS = 0.5
LEADER_SECONDS = 4.0
"""When the leading process dies, another one takes over within this time."""
MEND_SECONDS = 2.0
GRACE_SECONDS = 6.0
"""After Redis was away, workers get this long to renew: while it was, no lease could be kept."""


class Reconciler:
    """`run` it for as long as the API lives."""

    def __init__(
        self, client: redis.asyncio.Redis, ledger: JobLedger, messages: MessageBuilder, models: Sequence[str]
    ) -> None:
        self._client = client
        self._ledger = ledger
        self._envelopes = messages
        self._models = models
        self._name = token_hex(8)
        self._take_lead = client.register_script(script_source("elect_leader"))
        self._server: str | None = None
        self._first_contact = True
        self._trusted_from = 0.0
        self._mend_at = 0.0

    async def run(self) -> None:
        """One round after another, until cancelled."""
        while True:
            try:
                await self._round()
            except StoreDamaged as error:
                # Redis is there: what is not in the way of the rest is looked after in the next round.
                logger.error("a round was cut short: %s", error)
            except StoreUnavailable:
                self._server = None
                self._first_contact = False
            await asyncio.sleep(ROUND_SECONDS)

    async def _round(self) -> None:
        now = asyncio.get_running_loop().time()
        server, uptime_seconds = await self._server_run()
        if server != self._server:
            # The first contact with a Redis that was there all the time needs no grace.
            rested = uptime_seconds if self._first_contact else 0.0
            self._trusted_from = now + max(0.0, GRACE_SECONDS - rested)
            self._server = server
        self._first_contact = False
        if not await self._lead():
            return
        if mending := now >= self._mend_at:
            self._mend_at = now + MEND_SECONDS
        for model in self._models:
            if mending:
                await self._ledger.repair(model)
            await self._ledger.expire(model)
            if now >= self._trusted_from:
                await self.enqueue(await self._ledger.reconcile(model), model)

    async def enqueue(self, rings: Sequence[WakeUp], model: str) -> None:
        """Push the doorbells of the given shards."""
        by_class: defaultdict[str, list[bytes]] = defaultdict(list)
        for ring in rings:
            name = queue_keys.queue_name(model, ring.work_class)
            by_class[queue_keys.queue(model, ring.work_class)].append(
                self._envelopes.build(name, ring.job_id, ring.shard)
            )
        for queue, messages in by_class.items():
            await self._ledger.enqueue(queue, messages)
        if rings:
            logger.info("rang again for %d shards of %s", len(rings), model)

    async def _server_run(self) -> tuple[str, float]:
        """What tells one Redis process from the next, and the seconds it has been up."""
        with store_errors():
            server = await self._client.info("server")
        return str(server["run_id"]), float(server["uptime_in_seconds"])

    async def _lead(self) -> bool:
        """Take or keep the lock."""
        with store_errors():
            return bool(
                await self._take_lead(
                    keys=[service_keys.RECONCILER_LEADER], args=[self._name, int(LEADER_SECONDS * 1000)]
                )
            )
