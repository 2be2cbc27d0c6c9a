"""Sends the deliveries of the outbox: claims what is due, sends it, and records the outcome.

Every API process has a runner; a lock in Redis elects the one that works. A claim is a lease, so that a delivery whose
process dies is sent by the next one. Two leaders at once send a delivery twice at worst, under the same `webhook-id`.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Protocol

from api.background_tasks import cancel_and_wait
from api.webhooks.endpoints import Endpoint, Endpoints
from api.webhooks.event_bodies import EventBodies
from api.webhooks.messages import message_headers
from api.webhooks.retries import RUNPOD_RETRIES, STANDARD_RETRIES, RetryPolicy
from api.webhooks.sender import SendOutcome
from shared.errors import StoreUnavailable
from shared.ledger.delivery_ledger import DeliveryLedger
from shared.ledger.delivery_record import DEFAULT_ENDPOINT, DeliveryRecord, DeliveryStatus
from shared.webhooks import WebhookForm

logger = logging.getLogger(__name__)

_SETTLE_PAUSES = (0.0, 0.5, 1.0, 2.0, 4.0)


class Sender(Protocol):
    """Sends one request; see api/webhooks/sender.py."""

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> SendOutcome: ...


@dataclass(frozen=True, slots=True)
class RunnerLimits:
    """How many deliveries are sent at once, in all and to one host, and times in seconds.

    `poll`: how often the outbox is read. `leader`: another process takes over so long after the leader dies. `lease`: a
    delivery is sent again when its outcome is not recorded by then; longer than a try may take.
    """

    at_once: int = 32
    per_lane: int = 4
    poll: float = 0.5
    leader: float = 4.0
    lease: float = 20.0
    retries: Mapping[WebhookForm, RetryPolicy] = field(
        default_factory=lambda: {WebhookForm.STANDARD: STANDARD_RETRIES, WebhookForm.RUNPOD: RUNPOD_RETRIES}
    )


class DeliveryRunner:
    """Sends deliveries, in `run`."""

    def __init__(
        self,
        ledger: DeliveryLedger,
        endpoints: Endpoints,
        bodies: EventBodies,
        sender: Sender,
        limits: RunnerLimits | None = None,
    ) -> None:
        self._ledger = ledger
        self._endpoints = endpoints
        self._bodies = bodies
        self._sender = sender
        self._limits = limits or RunnerLimits()
        self._name = token_hex(8)
        self._busy: Counter[str] = Counter()
        self._sending: set[asyncio.Task[None]] = set()
        self._has_room = asyncio.Event()
        self._leader_until = 0.0

    async def run(self) -> None:
        """Send what is due until cancelled. What is being sent then is sent again after its lease."""
        try:
            while True:
                try:
                    await self._round()
                except StoreUnavailable as error:
                    self._leader_until = 0.0
                    logger.debug("the next round sends webhooks", extra={"error": error})
                self._has_room.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._limits.poll):
                        await self._has_room.wait()
        finally:
            await cancel_and_wait(self._sending)

    async def _round(self) -> None:
        if not await self._is_leader():
            return
        while (room := self._limits.at_once - len(self._sending)) > 0:
            claims = await self._ledger.claim(
                room, per_lane=self._limits.per_lane, busy=self._busy, lease_seconds=self._limits.lease
            )
            if not claims:
                return
            for delivery in claims:
                self._start(delivery)

    async def _is_leader(self) -> bool:
        now = time.monotonic()
        # Renewed well before it ends, and not for each of many rounds.
        if now >= self._leader_until:
            leads = await self._ledger.lead(self._name, self._limits.leader)
            self._leader_until = now + self._limits.leader / 4 if leads else 0.0
            return leads
        return True

    def _start(self, delivery: DeliveryRecord) -> None:
        self._busy[delivery.lane] += 1
        task = asyncio.create_task(self._deliver(delivery))
        self._sending.add(task)

        def ended(task: "asyncio.Task[None]") -> None:
            self._sending.discard(task)
            self._busy[delivery.lane] -= 1
            if not self._busy[delivery.lane]:
                del self._busy[delivery.lane]
            self._has_room.set()
            if not task.cancelled() and (error := task.exception()) is not None:
                logger.error(
                    "a webhook is not sent, tried again after its lease",
                    extra={"delivery": delivery.id},
                    exc_info=error,
                )

        task.add_done_callback(ended)

    async def _deliver(self, delivery: DeliveryRecord) -> None:
        try:
            endpoint = await self._endpoint_of(delivery)
            if endpoint is None or endpoint.disabled is not None:
                reason = "the endpoint was deleted" if endpoint is None else f"disabled: {endpoint.disabled}"
                await self._settle(delivery, DeliveryStatus.FAILED, error=reason)
                return
            body = delivery.body
            if body is None:
                body = await self._ledger.keep_body(delivery.id, await self._bodies.build(delivery))
            if body is None:
                return
        except StoreUnavailable:
            # It is due again after its lease.
            return
        now = time.time()
        secrets = endpoint.secrets(now) if delivery.secret is None else [delivery.secret]
        outcome = await self._sender.post(delivery.url, message_headers(secrets, delivery.id, int(now), body), body)
        await self._record(delivery, outcome)

    async def _endpoint_of(self, delivery: DeliveryRecord) -> Endpoint | None:
        if delivery.endpoint == DEFAULT_ENDPOINT:
            return await self._endpoints.default(delivery.owner)
        known = (await self._endpoints.of(delivery.owner)).get(delivery.endpoint)
        # The cache may be older than the endpoint.
        return known or await self._endpoints.read(delivery.owner, delivery.endpoint)

    async def _record(self, delivery: DeliveryRecord, outcome: SendOutcome) -> None:
        error = outcome.error
        if outcome.delivered:
            return await self._settle(delivery, DeliveryStatus.DELIVERED, outcome.status)
        if outcome.gone:
            if delivery.endpoint != DEFAULT_ENDPOINT:
                with suppress(StoreUnavailable):
                    await self._endpoints.disable(delivery.owner, delivery.endpoint, "it returned 410")
            return await self._settle(delivery, DeliveryStatus.FAILED, outcome.status, error)
        policy = self._limits.retries.get(delivery.form, STANDARD_RETRIES)
        age = max(0.0, time.time() - delivery.enqueued_ms / 1000)
        pause = policy.pause(delivery.tries, age, outcome.retry_after)
        if pause is None:
            fields = {"delivery": delivery.id, "tries": delivery.tries, "status": outcome.status, "error": error}
            logger.warning("a webhook failed", extra=fields)
            return await self._settle(delivery, DeliveryStatus.FAILED, outcome.status, error)
        await self._settle(delivery, DeliveryStatus.PENDING, outcome.status, error, pause)

    async def _settle(
        self,
        delivery: DeliveryRecord,
        outcome: DeliveryStatus,
        status: int | None = None,
        error: str | None = None,
        retry_seconds: float = 0.0,
    ) -> None:
        """Record an outcome. During an outage of Redis it tries for some seconds, so that few deliveries come twice."""
        for pause in _SETTLE_PAUSES:
            await asyncio.sleep(pause)
            with suppress(StoreUnavailable):
                await self._ledger.settle(
                    delivery, outcome, retry_seconds=retry_seconds, http_status=status, error=error
                )
                return
