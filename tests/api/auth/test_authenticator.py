import time
from types import SimpleNamespace
from typing import Any

import pytest

import api.auth.authenticator
from api.auth.authenticator import ANONYMOUS, CACHE_SECONDS, Authenticator
from api.auth.key_store import KeyStore
from shared.errors import StoreUnavailable, Unauthorized
from shared.keys import service_keys
from shared.owner_limits import OwnerLimits, OwnerTerms


class Clock:
    """A monotonic clock and a wall clock that advance only when a test sets them."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.now = time.time()

    def monotonic(self) -> float:
        return self.seconds

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(api.auth.authenticator, "time", SimpleNamespace(monotonic=clock.monotonic, time=clock.time))
    return clock


@pytest.fixture
def authenticator(store: KeyStore, clock: Clock) -> Authenticator:
    return Authenticator(store, always_required=False)


async def test_without_any_key_requests_are_anonymous(authenticator: Authenticator) -> None:
    assert await authenticator.owner(None) == ANONYMOUS
    assert await authenticator.owner("Bearer anything") == ANONYMOUS


async def test_always_required_rejects_requests_even_without_any_key(store: KeyStore, clock: Clock) -> None:
    with pytest.raises(Unauthorized, match="an API key is required"):
        await Authenticator(store, always_required=True).owner(None)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", " Bearer ", "Bearer  "])
async def test_owner_is_the_id_of_the_key(store: KeyStore, authenticator: Authenticator, scheme: str) -> None:
    key = await store.create("mine")
    (record,) = await store.list()
    assert await authenticator.owner(f"{scheme} {key}") == record.id


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic {key}", "{key}", "Bearer{key}"])
async def test_missing_or_malformed_authorization_is_rejected(
    store: KeyStore, authenticator: Authenticator, header: str | None
) -> None:
    key = await store.create("mine")
    with pytest.raises(Unauthorized, match="an API key is required"):
        await authenticator.owner(header and header.format(key=key))


async def test_wrong_key_is_rejected(store: KeyStore, authenticator: Authenticator) -> None:
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


async def test_new_key_takes_effect_when_the_cache_expires(
    store: KeyStore, authenticator: Authenticator, clock: Clock
) -> None:
    assert await authenticator.owner(None) == ANONYMOUS
    await store.create("mine")
    clock.seconds = CACHE_SECONDS - 0.1
    assert await authenticator.owner(None) == ANONYMOUS
    clock.seconds = CACHE_SECONDS
    with pytest.raises(Unauthorized):
        await authenticator.owner(None)


async def test_revoked_key_is_rejected_when_the_cache_expires(
    store: KeyStore, authenticator: Authenticator, clock: Clock
) -> None:
    await store.create("other")
    key = await store.create("mine")
    assert await authenticator.owner(f"Bearer {key}")
    await store.revoke("mine")
    clock.seconds = CACHE_SECONDS
    with pytest.raises(Unauthorized, match="revoked"):
        await authenticator.owner(f"Bearer {key}")


async def test_keys_are_cached_between_requests(store: KeyStore, authenticator: Authenticator, client: Any) -> None:
    key = await store.create("mine")
    await authenticator.owner(f"Bearer {key}")
    await client.flushall()
    assert await authenticator.owner(f"Bearer {key}")


@pytest.mark.parametrize("payload", ["no JSON", "{}", "[]"])
async def test_damaged_record_matches_no_key_and_still_requires_one(
    store: KeyStore, client: Any, clock: Clock, payload: str
) -> None:
    await client.hset(service_keys.API_KEYS, "damaged", payload)
    with pytest.raises(Unauthorized):
        await Authenticator(store, always_required=False).owner(None)
    key = await store.create("good")
    assert await Authenticator(store, always_required=False).owner(f"Bearer {key}")
    assert await store.revoke("damaged")
    assert [record.name for record in await store.list()] == ["good"]


async def test_unreachable_redis_rejects_every_request(unreachable_store: KeyStore, clock: Clock) -> None:
    authenticator = Authenticator(unreachable_store, always_required=False)
    with pytest.raises(StoreUnavailable):
        await authenticator.owner(None)


async def test_expired_key_is_rejected(store: KeyStore, authenticator: Authenticator, clock: Clock) -> None:
    key = await store.create("mine", lifetime_seconds=60)
    assert await authenticator.owner(f"Bearer {key}")
    clock.now += 61
    with pytest.raises(Unauthorized, match="expired"):
        await authenticator.owner(f"Bearer {key}")


async def test_terms_are_those_of_the_key(store: KeyStore, authenticator: Authenticator) -> None:
    terms = OwnerTerms(2.0, OwnerLimits(requests_per_second=5))
    key = await store.create("mine", terms)
    assert authenticator.terms_of(await authenticator.owner(f"Bearer {key}")) == terms
    assert authenticator.terms_of(ANONYMOUS) == OwnerTerms()
