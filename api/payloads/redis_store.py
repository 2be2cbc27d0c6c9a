"""A payload store in Redis, for small deployments without a disk or a bucket that the API processes share.

Owns the layout: a record under the object's name points to one version of its data, so that replacing an object is one
command. Refuses large objects, because they would take the memory that jobs need.
"""

import json
import logging
import math
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterable, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

import redis.asyncio
from redis.exceptions import OutOfMemoryError, RedisError

from api.payloads.base import (
    BLOCK_BYTES,
    StoredObject,
    blocks,
    check_name,
    check_range,
    full,
    missing,
    run_to_end,
    unavailable,
)
from shared.errors import PayloadsFull
from shared.keys import payload_keys

logger = logging.getLogger(__name__)

MAX_BYTES = 64 << 20
_CHUNK_BYTES = 1 << 18
"""Redis serves others between two chunks; a larger chunk would delay them."""
_CHUNKS_PER_READ = BLOCK_BYTES // _CHUNK_BYTES
_NAMES_PER_SCAN = 1000


@dataclass(frozen=True, slots=True)
class _Record:
    """What is stored under an object's name. `version` names its data, `modified_at` is in Unix seconds."""

    version: str
    bytes: int
    modified_at: float


class RedisStore:
    """A PayloadStore in Redis, which deletes objects at their `expires_at`. The client must return bytes.

    An object with more than `max_bytes` raises PayloadsFull.
    """

    def __init__(self, client: redis.asyncio.Redis, max_bytes: int = MAX_BYTES) -> None:
        self._client = client
        self._max_bytes = max_bytes

    async def write(self, name: str, chunks: AsyncIterable[bytes], *, expires_at: float) -> int:
        """See PayloadStore."""
        check_name(name)
        version = secrets.token_hex(8)
        size, publishing = 0, False
        try:
            async with aclosing(blocks(chunks, _CHUNK_BYTES)) as parts:
                async for part in parts:
                    size += len(part)
                    if size > self._max_bytes:
                        raise PayloadsFull(f"a file in Redis can have at most {self._max_bytes} bytes")
                    await run_to_end(self._write_chunk(version, (size - 1) // _CHUNK_BYTES, part))
            publishing = True
            await run_to_end(self._publish(name, _Record(version, size, time.time()), math.ceil(expires_at)))
        except BaseException as error:
            # When the reply to publishing is lost, the object may be visible. A full Redis publishes nothing.
            if not publishing or isinstance(error, PayloadsFull):
                with suppress(RedisError, OSError):  # an abandoned write, if Redis is unreachable
                    await run_to_end(self._discard(version))
            raise
        return size

    async def _write_chunk(self, version: str, number: int, chunk: bytes) -> None:
        # Two commands instead of a pipeline: an error of a pipeline contains the beginning of the chunk.
        with _redis_errors():
            await self._client.zadd(payload_keys.UNFINISHED_PAYLOADS, {version: time.time()})
            await self._client.hset(payload_keys.payload_data(version), str(number), chunk)

    async def _publish(self, name: str, record: _Record, expires_at: int) -> None:
        """Give the data its name, and delete the data that had it."""
        key = payload_keys.payload(name)
        with _redis_errors():
            async with self._client.pipeline(transaction=True) as publish:
                publish.expireat(payload_keys.payload_data(record.version), expires_at)
                publish.set(key, json.dumps(asdict(record)), exat=expires_at, get=True)
                publish.zadd(payload_keys.PAYLOADS, {name: expires_at})
                publish.zrem(payload_keys.UNFINISHED_PAYLOADS, record.version)
                # Names whose objects Redis has deleted itself.
                publish.zremrangebyscore(payload_keys.PAYLOADS, "-inf", time.time() - 1)
                has_data, old, *_ = await publish.execute()
            # redis-py repeats a transaction whose reply was lost: the old record is then this one.
            if old is not None and (replaced := _parse(old)) is not None and replaced.version != record.version:
                await self._client.unlink(payload_keys.payload_data(replaced.version))
            if record.bytes and not has_data:
                await self.delete(name)
                raise unavailable(TimeoutError("an unfinished object was removed because it did not grow"))

    async def _discard(self, version: str) -> None:
        """Delete the data of an object that was not published."""
        # No transaction: a full Redis refuses every command in one, even those that free memory.
        await self._client.unlink(payload_keys.payload_data(version))
        await self._client.zrem(payload_keys.UNFINISHED_PAYLOADS, version)

    async def read(self, name: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes]:
        """See PayloadStore. Fails when the object is replaced or deleted meanwhile."""
        check_range(start, end)
        with _redis_errors():
            value: Any = await self._client.get(payload_keys.payload(check_name(name)))
        if value is None or (record := _parse(value)) is None:
            raise missing(name)
        stop = record.bytes if end is None else min(end, record.bytes)
        while start < stop:
            first = start // _CHUNK_BYTES
            numbers = range(first, min(first + _CHUNKS_PER_READ, -(-stop // _CHUNK_BYTES)))
            data = await self._read_chunks(record, numbers)
            begin = first * _CHUNK_BYTES
            yield data[start - begin : stop - begin]
            start = min(begin + len(data), stop)

    async def _read_chunks(self, record: _Record, numbers: Sequence[int]) -> bytes:
        with _redis_errors():
            key = payload_keys.payload_data(record.version)
            chunks: Any = await self._client.hmget(key, [str(number) for number in numbers])
        expected = min(record.bytes, (numbers[-1] + 1) * _CHUNK_BYTES) - numbers[0] * _CHUNK_BYTES
        data = b"".join(chunk or b"" for chunk in chunks)
        if len(data) != expected:
            raise unavailable(LookupError("an object was replaced or deleted while it was read"))
        return data

    async def delete(self, name: str) -> None:
        """See PayloadStore."""
        check_name(name)
        with _redis_errors():
            # In this order, an object that is written meanwhile may be deleted, but is never missing from the list.
            await self._client.zrem(payload_keys.PAYLOADS, name)
            value: Any = await self._client.getdel(payload_keys.payload(name))
            if value is not None and (record := _parse(value)) is not None:
                await self._client.unlink(payload_keys.payload_data(record.version))

    async def list(self) -> AsyncGenerator[StoredObject]:
        """See PayloadStore. Holds the names in memory, because Redis may return one twice."""
        seen: set[bytes] = set()
        cursor = 0
        while True:
            with _redis_errors():
                scanned: Any = await self._client.zscan(payload_keys.PAYLOADS, cursor, count=_NAMES_PER_SCAN)
                cursor, found = scanned
                names = [name for name, _ in dict(found).items() if name not in seen]
                keys = [payload_keys.payload(name.decode()) for name in names]
                values: Any = await self._client.mget(keys) if keys else []
            seen.update(names)
            for name, value in zip(names, values, strict=True):
                if value is not None and (record := _parse(value)) is not None:
                    yield StoredObject(name.decode(), record.bytes, record.modified_at)
            if cursor == 0:
                return

    async def remove_abandoned(self, older_than_seconds: float) -> int:
        """See PayloadStore. A write is interrupted when its object has not grown for this time."""
        with _redis_errors():
            before = time.time() - older_than_seconds
            versions: Any = await self._client.zrangebyscore(payload_keys.UNFINISHED_PAYLOADS, "-inf", before)
            for version in versions:
                await self._discard(version.decode())
        return len(versions)

    async def close(self) -> None:
        """See PayloadStore. The client stays open: it belongs to the caller."""


def _parse(value: bytes) -> _Record | None:
    """The stored record; None when another program has changed it."""
    try:
        return _Record(**json.loads(value))
    except (ValueError, TypeError) as error:
        logger.error("the record of a stored object is damaged", extra={"error": type(error).__name__})
        return None


@contextmanager
def _redis_errors() -> Iterator[None]:
    """Convert errors of Redis inside the block into PayloadsFull or PayloadsUnavailable."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise (full if isinstance(error, OutOfMemoryError) else unavailable)(error) from error
