import asyncio
from collections.abc import AsyncIterator

import pytest
import redis.asyncio

from api.jobs.completions import CompletionListener
from shared.keys import job_keys
from shared.ledger.job_ledger import JobLedger
from tests.shared.conftest import async_client, ledger, store

__all__ = ["async_client", "ledger", "replies", "store"]


@pytest.fixture
async def replies(async_client: redis.asyncio.Redis, ledger: JobLedger) -> AsyncIterator[CompletionListener]:
    """Running, and subscribed."""
    waiter = CompletionListener(async_client, ledger)
    running = asyncio.create_task(waiter.run())
    await until_subscribed(async_client)
    yield waiter
    await stop_background()
    assert running.done()


async def stop_background() -> None:
    """Cancel every other task, again and again where a library swallows it."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for _ in range(50):
        if not others:
            return
        for task in others:
            task.cancel()
        _, others = await asyncio.wait(others, timeout=0.1)
    raise AssertionError(f"still running: {others}")


async def until_subscribed(client: redis.asyncio.Redis) -> None:
    """Wait until somebody listens for finished jobs."""
    for _ in range(500):
        if await client.pubsub_channels(job_keys.JOB_ENDED_CHANNEL):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("nobody has subscribed")
