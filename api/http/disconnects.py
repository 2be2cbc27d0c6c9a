"""Cancels the work for a request when its client disconnects."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

T = TypeVar("T")


async def cancel_on_disconnect(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of `work`. When the client disconnects, cancel `work` and raise ClientDisconnect.

    Call this after the body was read.
    """
    # `work` runs in the current task: every request pays for each task created here.
    task = asyncio.current_task()
    assert task is not None
    disconnected = False

    def cancel_work(_: asyncio.Future[None]) -> None:
        nonlocal disconnected
        disconnected = True
        task.cancel()

    disconnect = asyncio.ensure_future(_wait_for_disconnect(request))
    disconnect.add_done_callback(cancel_work)
    try:
        return await work
    except asyncio.CancelledError:
        # uncancel() returns the number of other cancellations: those must reach the task's owner.
        if disconnected and not task.uncancel():
            raise ClientDisconnect from None
        raise
    finally:
        disconnect.remove_done_callback(cancel_work)
        disconnect.cancel()


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
