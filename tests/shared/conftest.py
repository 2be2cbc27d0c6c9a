from collections.abc import AsyncIterator

import pytest
import redis.asyncio

from shared.ledger import Ledger, Lifetimes
from shared.redis_client import connect_async

LIFETIMES = Lifetimes(result=100.0, unfinished=1000.0)


@pytest.fixture
async def async_client(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    client = connect_async(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
def ledger(async_client: redis.asyncio.Redis) -> Ledger:
    return Ledger(async_client, LIFETIMES)
