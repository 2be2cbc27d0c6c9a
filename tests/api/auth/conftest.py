from collections.abc import AsyncIterator
from typing import Any

import fakeredis
import pytest

from api.auth.key_store import KeyStore


@pytest.fixture
async def client() -> AsyncIterator[Any]:
    client = fakeredis.FakeAsyncRedis()
    yield client
    await client.aclose()


@pytest.fixture
def store(client: Any) -> KeyStore:
    return KeyStore(client)


@pytest.fixture
def unreachable_store() -> KeyStore:
    server = fakeredis.FakeServer()
    server.connected = False
    return KeyStore(fakeredis.FakeAsyncRedis(server=server))
