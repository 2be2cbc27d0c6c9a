"""Stops background tasks."""

import asyncio
from collections.abc import Iterable

_CANCEL_AGAIN_SECONDS = 0.5


async def cancel_and_wait(tasks: Iterable["asyncio.Task[None]"]) -> None:
    """Cancel the tasks, repeatedly, until all have ended.

    Before Python 3.12, `asyncio.wait_for` swallows a cancellation that arrives as the awaited operation completes.
    redis-py sends commands inside `wait_for`.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN_SECONDS)
