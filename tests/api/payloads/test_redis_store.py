"""What only the store in Redis does: it limits sizes, and Redis deletes what has expired."""

import asyncio
import math
import time
from typing import Any

import pytest
import redis.asyncio

from api.payloads.redis_store import MAX_BYTES, RedisStore
from shared.errors import PayloadMissing, PayloadsFull, PayloadsUnavailable
from shared.keys import PREFIX, payload_keys
from shared.store.client import connect_async
from tests.api.payloads.support import MIB, chunks_of, in_an_hour, memory_limit, objects, read, repeated, write
from tests.shared.support import dead_redis_url, out_of_memory


@pytest.fixture
def store(async_client: redis.asyncio.Redis) -> RedisStore:
    return RedisStore(async_client)


async def test_deleted_object_leaves_no_key(store: RedisStore, redis_client: Any) -> None:
    await write(store, "owner/file", bytes(MIB))
    keys = redis_client.keys()
    assert len(keys) == 3
    assert all(key.decode().startswith(PREFIX) for key in keys)
    await store.delete("owner/file")
    assert redis_client.keys() == []


async def test_replaced_object_leaves_no_data(store: RedisStore, redis_client: Any) -> None:
    for _ in range(3):
        await write(store, "file", bytes(MIB))
    assert len(redis_client.keys()) == 3


async def test_every_key_of_an_object_expires(store: RedisStore, redis_client: Any) -> None:
    expires_at = in_an_hour()
    await store.write("file", chunks_of(bytes(MIB)), expires_at=expires_at)
    keys = [key for key in redis_client.keys("*") if key != payload_keys.PAYLOADS.encode()]
    assert [redis_client.expiretime(key) for key in keys] == [math.ceil(expires_at)] * 2


async def test_expired_object_is_missing(store: RedisStore, redis_client: Any) -> None:
    await store.write("file", chunks_of(b"data"), expires_at=time.time() + 0.1)
    await asyncio.sleep(2.2)
    assert await objects(store) == {}
    with pytest.raises(PayloadMissing):
        await read(store, "file")
    await write(store, "other", b"data")
    assert redis_client.zrange(payload_keys.PAYLOADS, 0, -1) == [b"other"]


async def test_object_over_the_limit_is_rejected(async_client: redis.asyncio.Redis, redis_client: Any) -> None:
    store = RedisStore(async_client, max_bytes=MIB)
    assert await write(store, "file", bytes(MIB)) == MIB
    with pytest.raises(PayloadsFull, match="at most 1048576 bytes"):
        await write(store, "other", bytes(MIB + 1))
    assert list(await objects(store)) == ["file"]
    assert len(redis_client.keys()) == 3


async def test_full_redis_keeps_what_it_has(store: RedisStore, redis_client: Any) -> None:
    await write(store, "file", b"old")
    for data in (b"", b"new", bytes(2 * MIB)):
        with out_of_memory(redis_client), pytest.raises(PayloadsFull):
            await write(store, "file", data)
        with out_of_memory(redis_client):
            assert await read(store, "file") == b"old"
    with out_of_memory(redis_client):
        await store.delete("file")
    assert redis_client.keys() == []


async def test_redis_that_becomes_full_keeps_nothing_of_a_write(store: RedisStore, redis_client: Any) -> None:
    async def chunks() -> Any:
        yield bytes(2 * MIB)
        redis_client.config_set("maxmemory", 1)
        yield bytes(2 * MIB)

    try:
        with pytest.raises(PayloadsFull):
            await store.write("file", chunks(), expires_at=in_an_hour())
    finally:
        redis_client.config_set("maxmemory", 0)
    assert redis_client.keys() == []


async def test_unreachable_redis_is_reported() -> None:
    client = connect_async(dead_redis_url())
    store = RedisStore(client)
    operations = (
        write(store, "file", b"data"),
        read(store, "file"),
        objects(store),
        store.delete("file"),
        store.remove_abandoned(0),
    )
    for operation in operations:
        with pytest.raises(PayloadsUnavailable, match="cannot be used now"):
            await operation
    await client.aclose()


async def test_reader_of_a_deleted_object_is_told(store: RedisStore) -> None:
    await write(store, "file", bytes(3 * MIB))
    chunks = store.read("file")
    await anext(chunks)
    await store.delete("file")
    with pytest.raises(PayloadsUnavailable):
        await anext(chunks)


@pytest.mark.parametrize("record", ["", "[]", '{"version": 1}', "\x00"])
async def test_damaged_record_counts_as_missing(store: RedisStore, redis_client: Any, record: str) -> None:
    for name in ("file", "other"):
        await write(store, name, b"data")
    redis_client.set(payload_keys.payload("file"), record)
    assert list(await objects(store)) == ["other"]
    with pytest.raises(PayloadMissing):
        await read(store, "file")
    await write(store, "file", b"new")
    assert await read(store, "file") == b"new"


async def test_write_that_was_removed_as_abandoned_fails(store: RedisStore, redis_client: Any) -> None:
    async def chunks() -> Any:
        yield bytes(MIB)
        assert await store.remove_abandoned(-1) == 1

    with pytest.raises(PayloadsUnavailable):
        await store.write("file", chunks(), expires_at=in_an_hour())
    assert redis_client.keys() == []


async def test_memory_does_not_grow_with_the_object(store: RedisStore) -> None:
    with memory_limit(8 * MIB):
        await store.write("file", repeated(bytes(65_536), 1024), expires_at=in_an_hour())
        assert sum([len(chunk) async for chunk in store.read("file")]) == MAX_BYTES
