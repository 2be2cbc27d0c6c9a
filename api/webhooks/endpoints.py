"""Webhook endpoints of API keys, with their secrets. Cached: submitting a job needs no round trip for them."""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from secrets import token_hex

from pydantic import TypeAdapter, ValidationError

from api.webhooks.signatures import new_secret
from shared.errors import StoreDamaged
from shared.ledger.delivery_record import DEFAULT_ENDPOINT
from shared.ledger.endpoint_ledger import EndpointLedger
from shared.webhooks import WebhookEvent

logger = logging.getLogger(__name__)

CACHE_SECONDS = 2.0
"""The time until every API process knows of a created or deleted endpoint."""
OLD_SECRET_SECONDS = 86_400.0
"""How long the previous secret signs, too, after a rotation."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A webhook endpoint of a key. Times are Unix seconds.

    `events` empty: all of them. `old_secret` signs beside `secret` until `old_secret_until`. `disabled`: why it gets no
    more events. The endpoint `default` has no URL: its secret signs what is sent to URLs of single requests.
    """

    id: str
    url: str
    secret: str
    created: float
    events: tuple[WebhookEvent, ...] = ()
    description: str | None = None
    old_secret: str | None = None
    old_secret_until: float = 0.0
    disabled: str | None = None

    def secrets(self, now: float) -> list[str]:
        """The secrets that sign at `now`, the newest first."""
        return [self.secret, *([self.old_secret] if self.old_secret and now < self.old_secret_until else [])]

    def wants(self, event: WebhookEvent) -> bool:
        return self.disabled is None and (not self.events or event in self.events)


_RECORD = TypeAdapter(Endpoint)


def new_endpoint(url: str, events: tuple[WebhookEvent, ...] = (), description: str | None = None) -> Endpoint:
    """An endpoint with a new id and secret, stored nowhere."""
    return Endpoint(f"we_{token_hex(12)}", url, new_secret(), time.time(), events, description)


class Endpoints:
    """The endpoints of all keys. Every method raises StoreUnavailable when Redis is unreachable."""

    def __init__(self, ledger: EndpointLedger, cache_seconds: float = CACHE_SECONDS) -> None:
        self._ledger = ledger
        self._cache_seconds = cache_seconds
        self._cached: defaultdict[str, dict[str, Endpoint]] = defaultdict(dict)
        self._read_at = float("-inf")
        self._refreshing = asyncio.Lock()

    async def of(self, owner: str) -> dict[str, Endpoint]:
        """An owner's endpoints by their ids, with `default` if it exists; up to two seconds old."""
        if time.monotonic() - self._read_at >= self._cache_seconds:
            async with self._refreshing:
                if time.monotonic() - self._read_at >= self._cache_seconds:
                    await self._refresh()
        return self._cached.get(owner, {})

    async def of_now(self, owner: str) -> dict[str, Endpoint]:
        """An owner's endpoints as they are now."""
        await self._refresh()
        return self._cached.get(owner, {})

    async def read(self, owner: str, endpoint_id: str) -> Endpoint | None:
        """One endpoint as it is now; None when it does not exist."""
        text = await self._ledger.read(owner, endpoint_id)
        return None if text is None else _parse(endpoint_id, text)

    async def create(self, owner: str, endpoint: Endpoint) -> bool:
        """Store a new endpoint; False when it exists. Raises InvalidRequest when the owner has too many."""
        created = await self._ledger.replace(owner, endpoint.id, None, _encode(endpoint))
        await self._refresh()
        return created

    async def default(self, owner: str) -> Endpoint:
        """The endpoint `default`, created on first use."""
        if (known := (await self.of(owner)).get(DEFAULT_ENDPOINT)) is not None:
            return known
        while (endpoint := await self.read(owner, DEFAULT_ENDPOINT)) is None:
            await self.create(owner, replace(new_endpoint(""), id=DEFAULT_ENDPOINT))
        return endpoint

    async def rotate(self, owner: str, endpoint_id: str) -> Endpoint | None:
        """Give an endpoint a new secret; the old one signs, too, for a day. None when it does not exist."""
        now = time.time()

        def rotated(endpoint: Endpoint) -> Endpoint:
            return replace(
                endpoint,
                secret=new_secret(),
                old_secret=endpoint.secret,
                old_secret_until=now + OLD_SECRET_SECONDS,
            )

        return await self._change(owner, endpoint_id, rotated)

    async def disable(self, owner: str, endpoint_id: str, reason: str) -> None:
        """Send an endpoint no more events."""
        await self._change(owner, endpoint_id, lambda endpoint: replace(endpoint, disabled=reason))

    async def delete(self, owner: str, endpoint_id: str) -> bool:
        """Delete an endpoint; False when it does not exist."""
        return await self._change(owner, endpoint_id, lambda _: None) is not None

    async def _change(
        self, owner: str, endpoint_id: str, change: Callable[[Endpoint], Endpoint | None]
    ) -> Endpoint | None:
        """Replace an endpoint, however often another process changes it meanwhile. Returns the new one.

        Returns the old one when the change deletes it, and None when it does not exist.
        """
        while (text := await self._ledger.read(owner, endpoint_id)) is not None:
            endpoint = _parse(endpoint_id, text)
            changed = change(endpoint)
            after = None if changed is None else _encode(changed)
            if await self._ledger.replace(owner, endpoint_id, text, after):
                await self._refresh()
                return changed or endpoint
        return None

    async def _refresh(self) -> None:
        cached: defaultdict[str, dict[str, Endpoint]] = defaultdict(dict)
        try:
            for (owner, endpoint_id), text in (await self._ledger.all()).items():
                cached[owner][endpoint_id] = _parse(endpoint_id, text)
            self._cached = cached
        except StoreDamaged:
            # It is logged. Most jobs have no webhooks and must not fail; the endpoints known so far stay.
            pass
        self._read_at = time.monotonic()


def _encode(endpoint: Endpoint) -> str:
    return _RECORD.dump_json(endpoint).decode()


def _parse(endpoint_id: str, text: str) -> Endpoint:
    try:
        return _RECORD.validate_json(text)
    except ValidationError:
        logger.error("a webhook endpoint is damaged: delete it", extra={"endpoint": endpoint_id[:40]})
        return Endpoint(endpoint_id, "", "", 0.0, disabled="its record is damaged")
