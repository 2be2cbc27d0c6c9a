from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import redis
import redis.asyncio

from shared.keys import job_keys
from shared.ledger.job_ledger import JobLedger
from shared.ledger.limits import Lifetimes
from shared.ledger.worker_ledger import WorkerLedger
from shared.queue.celery_app import make_celery
from shared.queue.messages import MessageBuilder
from shared.store.client import connect_async
from tests.shared.support import MODEL, StoreView

LIFETIMES = Lifetimes(result=100.0, unfinished=1000.0)


@pytest.fixture
async def async_client(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    client = connect_async(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
def ledger(async_client: redis.asyncio.Redis) -> JobLedger:
    return JobLedger(async_client, LIFETIMES)


@pytest.fixture
def store(redis_client: redis.Redis) -> StoreView:
    return StoreView(redis_client)


@pytest.fixture
def worker(redis_client: redis.Redis) -> WorkerLedger:
    """A worker that sends no messages: those in the queue are the API's."""
    return WorkerLedger(redis_client, MODEL)


@pytest.fixture
def enqueueing_worker(redis_client: redis.Redis, redis_url: str) -> WorkerLedger:
    return WorkerLedger(redis_client, MODEL, MessageBuilder(make_celery(redis_url)))


@pytest.fixture
def published_ends(redis_client: Any) -> Iterator[Callable[[], list[str]]]:
    """Returns the ids of the jobs whose end was published since the last call."""
    with redis_client.pubsub() as channel:
        channel.psubscribe(job_keys.job_ended_channel("*"))

        def read() -> list[str]:
            redis_client.publish(job_keys.job_ended_channel("test"), "end of test")
            ids: list[str] = []
            while (message := channel.get_message(timeout=5)) is not None:
                if message["data"] == b"end of test":
                    return ids
                if message["type"] == "pmessage":
                    ids.append(message["data"].decode().partition(" ")[0])
            raise AssertionError("the channel has no message")

        yield read
