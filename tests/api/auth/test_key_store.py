import re
from types import SimpleNamespace
from typing import Any

import pytest

import api.auth.key_store
from api.auth.key_store import KeyStore
from shared.errors import InvalidRequest, StoreUnavailable
from shared.keys import service_keys
from tests.shared.support import out_of_memory


async def test_key_is_long_random_and_has_a_prefix(store: KeyStore) -> None:
    key, other = await store.create("one"), await store.create("other")
    assert re.fullmatch(r"rq-[0-9a-f]{12}-[\w-]{43}", key)
    assert key != other


async def test_redis_stores_neither_key_nor_secret(store: KeyStore, client: Any) -> None:
    key = await store.create("search box")
    secret = key.split("-", 2)[2]
    (stored,) = (await client.hgetall(service_keys.API_KEYS)).values()
    assert b"search box" in stored
    assert secret.encode() not in stored
    assert await client.keys() == [service_keys.API_KEYS.encode()]


async def test_keys_are_listed_oldest_first(store: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for seconds, name in [(30, "young"), (10, "old"), (20, "middle"), (10, "as old")]:
        monkeypatch.setattr(api.auth.key_store, "time", SimpleNamespace(time=lambda seconds=seconds: seconds))
        await store.create(name)
    assert [record.name for record in await store.list()] == ["as old", "old", "middle", "young"]


@pytest.mark.parametrize("name", ["", " x", "-x", "a\nb", "ü", "x" * 65, "a;b"])
async def test_invalid_name_is_rejected(store: KeyStore, name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await store.create(name)
    assert caught.value.param == "name"
    assert await store.list() == []


@pytest.mark.parametrize("name", ["x", "search box", "ci@build-7_2.x", "x" * 64])
async def test_valid_name_can_be_used_once(store: KeyStore, name: str) -> None:
    await store.create(name)
    with pytest.raises(InvalidRequest, match="revoke it first"):
        await store.create(name)


async def test_key_is_revoked_by_name_or_id(store: KeyStore) -> None:
    for name in ("one", "two"):
        await store.create(name)
    one, two = await store.list()
    assert await store.revoke(one.name)
    assert await store.revoke(two.id)
    assert await store.list() == []
    assert not await store.revoke("one")


async def test_unreachable_redis_raises_store_unavailable(unreachable_store: KeyStore) -> None:
    for call in (unreachable_store.list(), unreachable_store.create("x"), unreachable_store.revoke("x")):
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            await call


async def test_no_key_is_created_when_redis_is_out_of_memory(async_client: Any, redis_client: Any) -> None:
    with out_of_memory(redis_client), pytest.raises(StoreUnavailable, match="out of memory"):
        await KeyStore(async_client).create("x")
