"""API keys: made by a command, shown once, kept as a hash, compared in constant time, revocable.

A key reads `rq-ID-SECRET`. The id finds the record, the SHA-256 of the whole key proves it: the secret is 256 random
bits, so a slow password hash would protect nothing more.
"""

import asyncio
import hashlib
import hmac
import json
import logging
import re
import secrets
import time
from dataclasses import asdict, dataclass
from typing import Any

import redis.asyncio
from pydantic import TypeAdapter, ValidationError

from shared.errors import InvalidRequest, Unauthorized
from shared.keys import service_keys
from shared.store.client import store_errors

logger = logging.getLogger(__name__)

CACHE_SECONDS = 2.0
"""A key that was revoked or created is so within this time in every API process."""
ANONYMOUS = ""
_KEY = re.compile(r"rq-([0-9a-f]{12})-[A-Za-z0-9_-]{43}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ @-]{0,63}")


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What is kept of a key. `created` is Unix seconds."""

    id: str
    name: str
    created: int
    digest: str


_RECORD = TypeAdapter(KeyRecord)


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def is_bearer(authorization: str) -> bool:
    """Whether the header has the form of a key; of any case, as RFC 7235 wants it."""
    return authorization.strip().lower().startswith("bearer ")


class KeyStore:
    """The keys in Redis. Raises StoreUnavailable when Redis is away."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client

    async def create(self, name: str) -> str:
        """Make a key; the answer is the only time that it is seen. Raises InvalidRequest on a bad name."""
        if not _NAME.fullmatch(name):
            raise InvalidRequest("a key's name has 1 to 64 letters, digits, spaces or ._@-", param="name")
        if any(record.name == name for record in await self.list()):
            raise InvalidRequest(f"there is a key named {name!r} already; revoke it first", param="name")
        key_id = secrets.token_hex(6)
        key = f"rq-{key_id}-{secrets.token_urlsafe(32)}"
        record = KeyRecord(key_id, name, int(time.time()), _digest(key))
        with store_errors():
            await self._client.hset(service_keys.API_KEYS, key_id, json.dumps(asdict(record)))
        return key

    async def list(self) -> list[KeyRecord]:
        """All keys, oldest first. One whose record cannot be read is among them, and opens nothing."""
        with store_errors():
            fields: Any = await self._client.hgetall(service_keys.API_KEYS)
        records = [_read(name.decode(errors="replace"), payload) for name, payload in fields.items()]
        return sorted(records, key=lambda record: (record.created, record.name))

    async def revoke(self, name_or_id: str) -> bool:
        """Remove a key by its name or id; False when there is none."""
        found = [record.id for record in await self.list() if name_or_id in (record.name, record.id)]
        with store_errors():
            return bool(found and await self._client.hdel(service_keys.API_KEYS, *found))


def _read(key_id: str, payload: bytes) -> KeyRecord:
    """The record of one key. One that cannot be read must not be passed over: with no key left, everybody may come."""
    try:
        return _RECORD.validate_json(payload)
    except ValidationError:
        logger.error("the record of the API key %.20s cannot be read: revoke it", key_id)
        return KeyRecord(key_id, "(cannot be read)", 0, digest="")


class Authenticator:
    """Tells who calls. Holds the keys for a moment, so that a request seldom pays a round trip for them."""

    def __init__(self, store: KeyStore, *, always_required: bool) -> None:
        """`always_required`: also when the last key is revoked, because the API listens beyond loopback."""
        self._store = store
        self._always_required = always_required
        self._records: dict[str, KeyRecord] = {}
        self._read_at = float("-inf")
        self._refreshing = asyncio.Lock()

    async def owner(self, authorization: str | None) -> str:
        """The id of the caller's key, ANONYMOUS when none is needed. Raises Unauthorized."""
        if not await self.required():
            return ANONYMOUS
        scheme, _, key = (authorization or "").strip().partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise Unauthorized("an API key is required: send `Authorization: Bearer KEY`, or `Api-Key: KEY`")
        if (record := self._find(key.strip())) is None:
            raise Unauthorized("this API key is not known, or it was revoked")
        return record.id

    async def required(self) -> bool:
        """Whether callers need a key."""
        await self._refresh()
        return bool(self._records) or self._always_required

    def _find(self, key: str) -> KeyRecord | None:
        match = _KEY.fullmatch(key)
        record = self._records.get(match[1]) if match else None
        if record is None or not hmac.compare_digest(record.digest, _digest(key)):
            return None
        return record

    async def _refresh(self) -> None:
        if self._is_fresh():
            return
        async with self._refreshing:
            if not self._is_fresh():
                self._records = {record.id: record for record in await self._store.list()}
                self._read_at = time.monotonic()

    def _is_fresh(self) -> bool:
        return time.monotonic() - self._read_at < CACHE_SECONDS
