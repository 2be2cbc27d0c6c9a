"""Stores API keys in Redis: creates, lists and revokes them.

A key has the form `rq-ID-SECRET`. The id finds the record; the record holds the SHA-256 of the whole key. The secret
is 256 random bits, so a slow password hash would add no protection.
"""

import hashlib
import hmac
import json
import logging
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

import redis.asyncio
from pydantic import TypeAdapter, ValidationError

from shared.errors import InvalidRequest
from shared.keys import service_keys
from shared.owner_limits import DEFAULT_TERMS, OwnerTerms
from shared.store.client import store_errors

logger = logging.getLogger(__name__)

_KEY = re.compile(r"rq-([0-9a-f]{12})-[A-Za-z0-9_-]{43}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ @-]{0,63}")


class Scope(StrEnum):
    """What a key may do."""

    RERANK = "rerank"
    """Send requests, waiting or as jobs."""
    JOBS = "jobs"
    """List, read, cancel and delete its jobs."""
    ADMIN = "admin"
    """Read the pools and the metrics of the whole service."""


DEFAULT_SCOPES = (Scope.RERANK, Scope.JOBS)


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """The stored record of a key. `digest` is the key's SHA-256 in hexadecimal.

    `created` and `expires` are Unix seconds; a key whose `expires` is None never does.
    """

    id: str
    name: str
    created: int
    digest: str
    expires: int | None = None
    terms: OwnerTerms = DEFAULT_TERMS
    scopes: tuple[Scope, ...] = DEFAULT_SCOPES

    def expired(self, now: float) -> bool:
        """Whether the key's lifetime is over at `now` (Unix seconds)."""
        return self.expires is not None and now >= self.expires

    def matches(self, key: str) -> bool:
        """Whether `key` is this record's key. Compares in constant time."""
        return hmac.compare_digest(self.digest, _digest(key))


_RECORD = TypeAdapter(KeyRecord)


def parse_key_id(key: str) -> str | None:
    """The id within a key; None when the text does not have the form of a key."""
    match = _KEY.fullmatch(key)
    return match[1] if match else None


def make_key(
    name: str,
    terms: OwnerTerms = DEFAULT_TERMS,
    lifetime_seconds: float | None = None,
    scopes: Sequence[Scope] = DEFAULT_SCOPES,
) -> tuple[str, KeyRecord]:
    """A new key and its record, stored nowhere. Raises InvalidRequest for a bad name."""
    if not _NAME.fullmatch(name):
        raise InvalidRequest("a key's name has 1 to 64 letters, digits, spaces or ._@-", param="name")
    key_id, now = secrets.token_hex(6), int(time.time())
    key = _new_key(key_id)
    expires = None if lifetime_seconds is None else int(now + lifetime_seconds)
    return key, KeyRecord(key_id, name, now, _digest(key), expires, terms, tuple(scopes))


def _new_key(key_id: str) -> str:
    return f"rq-{key_id}-{secrets.token_urlsafe(32)}"


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


class KeyStore:
    """The keys in Redis. Every method raises StoreUnavailable when Redis is unreachable."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client

    async def create(
        self,
        name: str,
        terms: OwnerTerms = DEFAULT_TERMS,
        lifetime_seconds: float | None = None,
        scopes: Sequence[Scope] = DEFAULT_SCOPES,
    ) -> str:
        """Create a key and return it; it cannot be read again. Raises InvalidRequest for a bad or taken name."""
        key, record = make_key(name, terms, lifetime_seconds, scopes)
        if any(record.name == name for record in await self.list()):
            raise InvalidRequest(f"there is a key named {name!r} already; revoke it first", param="name")
        await self._write(record)
        return key

    async def rotate(self, name_or_id: str) -> str | None:
        """Replace a key's secret and return the new key; its id, jobs and limits stay. None when it does not exist."""
        if (record := await self.find(name_or_id)) is None:
            return None
        key = _new_key(record.id)
        await self._write(replace(record, digest=_digest(key)))
        return key

    async def find(self, name_or_id: str) -> KeyRecord | None:
        """A key by its name or id."""
        return next((record for record in await self.list() if name_or_id in (record.name, record.id)), None)

    async def _write(self, record: KeyRecord) -> None:
        with store_errors():
            await self._client.hset(service_keys.API_KEYS, record.id, json.dumps(asdict(record)))

    async def list(self) -> list[KeyRecord]:
        """All keys, oldest first. Includes damaged records, which match no key."""
        with store_errors():
            fields: Any = await self._client.hgetall(service_keys.API_KEYS)
        records = [_parse_record(key_id.decode(errors="replace"), payload) for key_id, payload in fields.items()]
        return sorted(records, key=lambda record: (record.created, record.name))

    async def revoke(self, name_or_id: str) -> bool:
        """Remove a key by its name or id; False when it does not exist."""
        found = [record.id for record in await self.list() if name_or_id in (record.name, record.id)]
        with store_errors():
            return bool(found and await self._client.hdel(service_keys.API_KEYS, *found))


def _parse_record(key_id: str, payload: bytes) -> KeyRecord:
    # A damaged record still counts as a key: without any key, the API accepts anonymous requests.
    try:
        return _RECORD.validate_json(payload)
    except ValidationError:
        logger.error("the record of an API key is damaged: revoke the key", extra={"key_id": key_id[:20]})
        return KeyRecord(key_id, "(damaged)", 0, digest="")
