"""The outbox of webhooks in Redis (asyncio): deliveries are claimed, settled, listed and sent again.

The scripts that end jobs and batches write the deliveries (store/lua/_webhooks.lua). Raises StoreUnavailable when Redis
is unreachable or refuses writes.
"""

import logging
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import redis.asyncio

from shared.keys import PREFIX, webhook_keys
from shared.ledger.delivery_record import DeliveryRecord, DeliveryStatus
from shared.ledger.job_record import Position
from shared.ledger.owned_pages import read_owned_page
from shared.store.client import damaged, store_errors
from shared.store.scripts import script_source

logger = logging.getLogger(__name__)

OUTCOMES = ("delivered", "retried", "failed")
_MAX_ERROR_CHARACTERS = 300


class DeliveryLedger:
    """The deliveries of all owners."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        names = ("claim_deliveries", "keep_body", "settle_delivery", "redeliver", "elect_leader")
        self._scripts: dict[str, Any] = {name: client.register_script(script_source(name)) for name in names}

    async def lead(self, candidate: str, seconds: float) -> bool:
        """Become the process that sends deliveries, or stay it, for `seconds`."""
        with store_errors():
            return bool(
                await self._scripts["elect_leader"](
                    keys=[webhook_keys.RUNNER_LEADER], args=[candidate, int(seconds * 1000)]
                )
            )

    async def claim(
        self, count: int, *, per_lane: int, busy: Mapping[str, int], lease_seconds: float
    ) -> list[DeliveryRecord]:
        """Claim up to `count` due deliveries; `busy` has how many of each lane are being sent.

        A delivery that is not settled within `lease_seconds` is due again.
        """
        sending = [part for lane in busy.items() for part in lane]
        with store_errors():
            claims: Any = await self._scripts["claim_deliveries"](
                keys=[webhook_keys.LANES], args=[PREFIX, count, per_lane, int(lease_seconds * 1000), *sending]
            )
        records = []
        for delivery_id, fields in claims:
            pairs = dict(zip(fields[::2], fields[1::2], strict=True))
            try:
                records.append(DeliveryRecord.from_hash(delivery_id.decode(), pairs))
            except (ValueError, LookupError):
                logger.error("a damaged webhook delivery was deleted", extra={"delivery": delivery_id.decode()[:100]})
                with store_errors():
                    await self._client.delete(webhook_keys.delivery(delivery_id.decode()))
        return records

    async def keep_body(self, delivery_id: str, body: bytes) -> bytes | None:
        """Store a delivery's body unless it has one. Returns the stored one; None when the delivery does not exist."""
        with store_errors():
            kept: bytes | None = await self._scripts["keep_body"](
                keys=[webhook_keys.delivery(delivery_id)], args=[body]
            )
        return kept

    async def settle(
        self,
        record: DeliveryRecord,
        outcome: DeliveryStatus,
        *,
        retry_seconds: float = 0.0,
        http_status: int | None = None,
        error: str | None = None,
    ) -> None:
        """Record the outcome of a claimed try; PENDING: try again after `retry_seconds`.

        Does nothing when the delivery was claimed again, except that what was delivered stays delivered.
        """
        args: list[str | int] = [PREFIX, record.id, record.tries, outcome, int(retry_seconds * 1000)]
        args += ["" if http_status is None else http_status, (error or "")[:_MAX_ERROR_CHARACTERS]]
        with store_errors():
            await self._scripts["settle_delivery"](keys=[webhook_keys.delivery(record.id)], args=args)

    async def redeliver(self, delivery_id: str) -> bool:
        """Make a delivery due now. Returns False when it does not exist."""
        with store_errors():
            return bool(
                await self._scripts["redeliver"](keys=[webhook_keys.delivery(delivery_id)], args=[PREFIX, delivery_id])
            )

    async def read(self, delivery_id: str) -> DeliveryRecord | None:
        """One delivery; None when it does not exist. Raises StoreDamaged."""
        with store_errors():
            fields: Any = await self._client.hgetall(webhook_keys.delivery(delivery_id))
        try:
            return DeliveryRecord.from_hash(delivery_id, fields) if fields else None
        except (ValueError, LookupError) as error:
            raise damaged(f"{type(error).__name__} in a webhook delivery") from None

    async def page(
        self,
        owner: str,
        endpoint_id: str,
        limit: int,
        after: Position | None = None,
        statuses: Collection[DeliveryStatus] = (),
    ) -> tuple[list[DeliveryRecord], bool]:
        """Up to `limit` deliveries to an endpoint, newest first, behind `after`; and whether there are more."""
        return await read_owned_page(
            self._client,
            webhook_keys.deliveries(owner, endpoint_id),
            webhook_keys.delivery,
            DeliveryRecord.from_hash,
            limit,
            after,
            wanted=lambda record: not statuses or record.status in statuses,
        )

    async def counts(self) -> Counter[str]:
        """How many deliveries were delivered, retried and failed so far."""
        with store_errors():
            fields: Any = await self._client.hgetall(webhook_keys.COUNTS)
        return Counter({name.decode(): int(count) for name, count in fields.items()})
