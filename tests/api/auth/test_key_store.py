import re
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import fakeredis
import pytest

import api.auth.key_store
from api.auth.key_store import ANONYMOUS, CACHE_SECONDS, Authenticator, KeyStore
from shared.errors import InvalidRequest, StoreUnavailable, Unauthorized
from shared.keys import service_keys
from tests.shared.support import out_of_memory


@pytest.fixture
async def client() -> AsyncIterator[Any]:
    client = fakeredis.FakeAsyncRedis()
    yield client
    await client.aclose()


@pytest.fixture
def store(client: Any) -> KeyStore:
    return KeyStore(client)


class Clock:
    """A monotonic clock that stands until it is moved."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(
        api.auth.key_store, "time", SimpleNamespace(monotonic=clock.monotonic, time=lambda: 1_700_000_000.5)
    )
    return clock


@pytest.fixture
def authenticator(store: KeyStore, clock: Clock) -> Authenticator:
    return Authenticator(store, always_required=False)


class TestKeyStore:
    async def test_a_key_is_long_random_and_says_what_it_is(self, store: KeyStore) -> None:
        key, other = await store.create("one"), await store.create("other")
        assert re.fullmatch(r"rq-[0-9a-f]{12}-[\w-]{43}", key)
        assert key != other

    async def test_neither_key_nor_secret_is_in_redis(self, store: KeyStore, client: Any) -> None:
        key = await store.create("search box")
        secret = key.split("-", 2)[2]
        (stored,) = (await client.hgetall(service_keys.API_KEYS)).values()
        assert b"search box" in stored
        assert secret.encode() not in stored
        assert await client.keys() == [service_keys.API_KEYS.encode()]

    async def test_keys_are_listed_oldest_first(self, store: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
        for seconds, name in [(30, "young"), (10, "old"), (20, "middle"), (10, "as old")]:
            monkeypatch.setattr(api.auth.key_store, "time", SimpleNamespace(time=lambda seconds=seconds: seconds))
            await store.create(name)
        assert [record.name for record in await store.list()] == ["as old", "old", "middle", "young"]

    @pytest.mark.parametrize("name", ["", " x", "-x", "a\nb", "ü", "x" * 65, "a;b"])
    async def test_a_bad_name_is_refused(self, store: KeyStore, name: str) -> None:
        with pytest.raises(InvalidRequest) as caught:
            await store.create(name)
        assert caught.value.param == "name"
        assert await store.list() == []

    @pytest.mark.parametrize("name", ["x", "search box", "ci@build-7_2.x", "x" * 64])
    async def test_a_plain_name_is_taken_once(self, store: KeyStore, name: str) -> None:
        await store.create(name)
        with pytest.raises(InvalidRequest, match="revoke it first"):
            await store.create(name)

    async def test_a_key_is_revoked_by_name_or_id(self, store: KeyStore) -> None:
        for name in ("one", "two"):
            await store.create(name)
        one, two = await store.list()
        assert await store.revoke(one.name)
        assert await store.revoke(two.id)
        assert await store.list() == []
        assert not await store.revoke("one")

    async def test_without_redis_the_store_is_unavailable(self) -> None:
        server = fakeredis.FakeServer()
        server.connected = False
        store = KeyStore(fakeredis.FakeAsyncRedis(server=server))
        for call in (store.list(), store.create("x"), store.revoke("x")):
            with pytest.raises(StoreUnavailable, match="cannot be reached"):
                await call

    async def test_a_full_store_takes_no_key(self, async_client: Any, redis_client: Any) -> None:
        with out_of_memory(redis_client), pytest.raises(StoreUnavailable):
            await KeyStore(async_client).create("x")

    async def test_a_full_store_says_so(self, async_client: Any, redis_client: Any) -> None:
        with out_of_memory(redis_client), pytest.raises(StoreUnavailable, match="out of memory"):
            await KeyStore(async_client).create("x")


class TestAuthenticator:
    async def test_without_any_key_everybody_is_welcome(self, authenticator: Authenticator) -> None:
        assert await authenticator.owner(None) == ANONYMOUS
        assert await authenticator.owner("Bearer whatever") == ANONYMOUS

    async def test_beyond_loopback_a_key_is_required_even_when_there_is_none(
        self, store: KeyStore, clock: Clock
    ) -> None:
        with pytest.raises(Unauthorized, match="an API key is required"):
            await Authenticator(store, always_required=True).owner(None)

    @pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", " Bearer ", "Bearer  "])
    async def test_the_owner_is_the_keys_id(self, store: KeyStore, authenticator: Authenticator, scheme: str) -> None:
        key = await store.create("mine")
        (record,) = await store.list()
        assert await authenticator.owner(f"{scheme} {key}") == record.id

    @pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic {key}", "{key}", "Bearer{key}"])
    async def test_without_a_bearer_key_nobody_comes_in(
        self, store: KeyStore, authenticator: Authenticator, header: str | None
    ) -> None:
        key = await store.create("mine")
        with pytest.raises(Unauthorized, match="an API key is required"):
            await authenticator.owner(header and header.format(key=key))

    async def test_a_key_that_is_not_quite_right_is_not_known(
        self, store: KeyStore, authenticator: Authenticator
    ) -> None:
        key = await store.create("mine")
        prefix, key_id, secret = key.split("-", 2)
        changed = ("B" if secret[0] == "A" else "A") + secret[1:]
        for wrong in (
            f"{prefix}-{key_id}-{changed}",
            f"{prefix}-{'0' * 12}-{secret}",
            key[:-1],
            key + "x",
            key.upper(),
            f"{key} {key}",
            "rq-ü",
        ):
            with pytest.raises(Unauthorized, match="not known, or it was revoked"):
                await authenticator.owner(f"Bearer {wrong}")

    async def test_a_new_key_is_required_within_the_caching_time(
        self, store: KeyStore, authenticator: Authenticator, clock: Clock
    ) -> None:
        assert await authenticator.owner(None) == ANONYMOUS
        await store.create("mine")
        clock.seconds = CACHE_SECONDS - 0.1
        assert await authenticator.owner(None) == ANONYMOUS
        clock.seconds = CACHE_SECONDS
        with pytest.raises(Unauthorized):
            await authenticator.owner(None)

    async def test_a_revoked_key_is_refused_within_the_caching_time(
        self, store: KeyStore, authenticator: Authenticator, clock: Clock
    ) -> None:
        await store.create("other")
        key = await store.create("mine")
        assert await authenticator.owner(f"Bearer {key}")
        await store.revoke("mine")
        clock.seconds = CACHE_SECONDS
        with pytest.raises(Unauthorized, match="revoked"):
            await authenticator.owner(f"Bearer {key}")

    async def test_calls_in_a_row_ask_redis_once(
        self, store: KeyStore, authenticator: Authenticator, client: Any
    ) -> None:
        key = await store.create("mine")
        await authenticator.owner(f"Bearer {key}")
        await client.flushall()
        assert await authenticator.owner(f"Bearer {key}")

    @pytest.mark.parametrize("payload", ["no JSON", "{}", "[]"])
    async def test_a_record_that_cannot_be_read_opens_nothing_and_lets_nobody_else_in(
        self, store: KeyStore, client: Any, clock: Clock, payload: str
    ) -> None:
        await client.hset(service_keys.API_KEYS, "spoiled", payload)
        with pytest.raises(Unauthorized):
            await Authenticator(store, always_required=False).owner(None)
        key = await store.create("good")
        assert await Authenticator(store, always_required=False).owner(f"Bearer {key}")
        assert await store.revoke("spoiled")
        assert [record.name for record in await store.list()] == ["good"]

    async def test_without_redis_nobody_is_let_in_by_chance(self, clock: Clock) -> None:
        server = fakeredis.FakeServer()
        server.connected = False
        authenticator = Authenticator(KeyStore(fakeredis.FakeAsyncRedis(server=server)), always_required=False)
        with pytest.raises(StoreUnavailable):
            await authenticator.owner(None)
