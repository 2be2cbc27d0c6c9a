"""Recovers jobs: requeues shards whose lease expired, resends lost wake-up messages, expires jobs past their deadline.

Every API process runs a reconciler; a lock in Redis elects the leader, which does the work. Two leaders at once do no
harm: every script may run twice.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
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
"""The lifetime of the leader's lock: another process takes over within this time after the leader dies."""
REPAIR_SECONDS = 2.0
GRACE_SECONDS = 6.0
"""The time for workers to renew their leases after an outage of Redis, before expired leases are requeued."""


class Reconciler:
    """Runs reconciliation rounds for all models, in `run`."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        ledger: JobLedger,
        messages: MessageBuilder,
        models: Sequence[str],
        on_round: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_round` is called after each round of the leader."""
        self._client = client
        self._ledger = ledger
        self._messages = messages
        self._models = models
        self._on_round = on_round
        self._name = token_hex(8)
        self._elect_leader = client.register_script(script_source("elect_leader"))
        self._server: str | None = None
        self._first_contact = True
        self._leases_valid_from = 0.0
        self._next_repair = 0.0

    async def run(self) -> None:
        """Run one round after another until cancelled."""
        while True:
            try:
                await self._round()
            except StoreDamaged as error:
                # Redis works: the next round processes everything that the damaged data does not block.
                logger.error("a reconciliation round failed", extra={"error": error})
            except StoreUnavailable:
                self._server = None
                self._first_contact = False
            await asyncio.sleep(ROUND_SECONDS)

    async def _round(self) -> None:
        now = asyncio.get_running_loop().time()
        await self._check_server(now)
        if not await self._is_leader():
            return
        if repair_due := now >= self._next_repair:
            self._next_repair = now + REPAIR_SECONDS
        for model in self._models:
            if repair_due:
                await self._ledger.repair(model)
            await self._ledger.expire(model)
            if now >= self._leases_valid_from:
                await self._enqueue(await self._ledger.reconcile(model), model)
        self._on_round()

    async def _check_server(self, now: float) -> None:
        """Start the grace period when Redis has restarted, or was unreachable since the last round."""
        with store_errors():
            server = await self._client.info("server")
        run_id, uptime_seconds = str(server["run_id"]), float(server["uptime_in_seconds"])
        if run_id != self._server:
            # At the first contact, Redis may have been up for long: then its leases are valid.
            elapsed = uptime_seconds if self._first_contact else 0.0
            self._leases_valid_from = now + max(0.0, GRACE_SECONDS - elapsed)
            self._server = run_id
        self._first_contact = False

    async def _enqueue(self, wake_ups: Sequence[WakeUp], model: str) -> None:
        """Send the wake-up messages to the queues of their classes."""
        messages_by_queue: defaultdict[str, list[bytes]] = defaultdict(list)
        for wake_up in wake_ups:
            name = queue_keys.queue_name(model, wake_up.work_class)
            messages_by_queue[queue_keys.queue(model, wake_up.work_class)].append(
                self._messages.build(name, wake_up.job_id, wake_up.shard)
            )
        for queue, messages in messages_by_queue.items():
            await self._ledger.enqueue(queue, messages)
        if wake_ups:
            logger.info("resent wake-up messages", extra={"model": model, "shards": len(wake_ups)})

    async def _is_leader(self) -> bool:
        """Acquire or renew the leader's lock."""
        with store_errors():
            return bool(
                await self._elect_leader(
                    keys=[service_keys.RECONCILER_LEADER], args=[self._name, int(LEADER_SECONDS * 1000)]
                )
            )
