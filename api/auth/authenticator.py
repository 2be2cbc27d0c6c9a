"""Authenticates requests by their API key. Caches the keys, so that most requests need no round trip to Redis."""

import asyncio
import time
from contextlib import suppress

from api.auth.key_file import KeyFile
from api.auth.key_store import KeyRecord, KeyStore, Scope, parse_key_id
from shared.errors import Forbidden, StoreUnavailable, Unauthorized
from shared.owner_limits import DEFAULT_TERMS, OwnerTerms

CACHE_SECONDS = 2.0
"""The time until every API process knows of a created or revoked key."""
ANONYMOUS = ""
"""The owner of requests without a key."""


def is_bearer(authorization: str) -> bool:
    """Whether the header uses the Bearer scheme, in any case (RFC 7235)."""
    return authorization.strip().lower().startswith("bearer ")


class Authenticator:
    """Finds the owner of a request."""

    def __init__(self, store: KeyStore, *, always_required: bool, file: KeyFile | None = None) -> None:
        """`always_required`: require a key even when none exists, because the API listens beyond loopback.

        The keys of `file` are valid beside those of the store.
        """
        self._store = store
        self._file = file
        self._always_required = always_required
        self._records: dict[str, KeyRecord] = {}
        self._read_at = float("-inf")
        self._refreshing = asyncio.Lock()

    async def owner(self, authorization: str | None, scope: Scope | None = None) -> str:
        """Return the id of the client's key, or ANONYMOUS when no key is required. Without `scope`, any key will do.

        Raises Unauthorized for a missing, unknown or expired key, Forbidden for one without the scope, and
        StoreUnavailable when Redis is unreachable.
        """
        if not await self.required():
            return ANONYMOUS
        scheme, _, key = (authorization or "").strip().partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise Unauthorized("an API key is required: send `Authorization: Bearer KEY`, or `Api-Key: KEY`")
        if (record := self._find(key.strip())) is None:
            raise Unauthorized("this API key is not known, or it was revoked")
        if record.expired(time.time()):
            raise Unauthorized("this API key has expired")
        if scope is not None and scope not in record.scopes:
            raise Forbidden(f"this API key lacks the scope {scope.value!r}")
        return record.id

    def terms_of(self, owner: str) -> OwnerTerms:
        """The limits and the weight of an owner whom `owner` returned."""
        record = self._records.get(owner)
        return DEFAULT_TERMS if record is None else record.terms

    async def required(self) -> bool:
        """Whether requests need a key."""
        await self._refresh()
        return bool(self._records) or self._always_required

    async def run(self) -> None:
        """Keep the keys fresh until cancelled, for a process that receives no requests."""
        while True:
            with suppress(StoreUnavailable):
                await self._refresh()
            await asyncio.sleep(CACHE_SECONDS)

    def _find(self, key: str) -> KeyRecord | None:
        key_id = parse_key_id(key)
        record = self._records.get(key_id) if key_id is not None else None
        return record if record is not None and record.matches(key) else None

    async def _refresh(self) -> None:
        if self._is_fresh():
            return
        async with self._refreshing:
            if not self._is_fresh():
                records = [*await self._store.list(), *(self._file.records() if self._file else ())]
                self._records = {record.id: record for record in records}
                self._read_at = time.monotonic()

    def _is_fresh(self) -> bool:
        return time.monotonic() - self._read_at < CACHE_SECONDS
