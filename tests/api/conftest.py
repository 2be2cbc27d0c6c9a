import asyncio
from collections.abc import AsyncIterator

import pytest
import redis.asyncio

from api.jobs.completions import CompletionListener
from shared.keys import job_keys
from shared.ledger.job_ledger import JobLedger
from tests.shared.conftest import async_client, ledger, store

__all__ = ["async_client", "completions", "ledger", "store"]


@pytest.fixture
async def completions(async_client: redis.asyncio.Redis, ledger: JobLedger) -> AsyncIterator[CompletionListener]:
    """A running and subscribed listener."""
    listener = CompletionListener(async_client, ledger)
    running = asyncio.create_task(listener.run())
    await wait_until_subscribed(async_client)
    yield listener
    await cancel_other_tasks()
    assert running.done()


async def cancel_other_tasks() -> None:
    """Cancel all other tasks, repeatedly, because redis-py may swallow a cancellation."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for _ in range(50):
        if not others:
            return
        for task in others:
            task.cancel()
        _, others = await asyncio.wait(others, timeout=0.1)
    raise AssertionError(f"still running: {others}")


async def wait_until_subscribed(client: redis.asyncio.Redis) -> None:
    """Wait until a listener has subscribed to the channel of ended jobs."""
    for _ in range(500):
        if await client.pubsub_channels(job_keys.job_ended_channel("*")):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("no listener has subscribed")
