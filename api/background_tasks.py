"""Ending of background tasks for good."""

import asyncio
from collections.abc import Iterable

_ASK_AGAIN_SECONDS = 0.5


async def cancel_and_wait(tasks: Iterable["asyncio.Task[None]"]) -> None:
    """Cancel the tasks until every one has ended.

    Once is not always enough: before Python 3.12 `asyncio.wait_for`, which redis-py sends within, swallows a
    cancellation that comes in the very moment when the sending is done.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_ASK_AGAIN_SECONDS)
