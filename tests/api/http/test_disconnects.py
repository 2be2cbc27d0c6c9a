import asyncio
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request

from api.http.disconnects import cancel_on_disconnect
from shared.errors import InvalidRequest


def make_request(*, disconnects: bool = False) -> Request:
    """A request whose body was read. The client keeps the connection open unless it `disconnects`."""

    async def receive() -> dict[str, Any]:
        if not disconnects:
            await asyncio.sleep(30)
        return {"type": "http.disconnect"}

    return Request({"type": "http", "method": "POST", "headers": []}, receive)


async def test_result_of_the_work_is_returned() -> None:
    async def work() -> str:
        return "done"

    assert await cancel_on_disconnect(make_request(), work()) == "done"


async def test_error_of_the_work_is_raised() -> None:
    async def work() -> None:
        raise InvalidRequest("no")

    with pytest.raises(InvalidRequest, match="no"):
        await cancel_on_disconnect(make_request(), work())


async def test_disconnect_cancels_the_work_and_waits_for_its_cleanup() -> None:
    cleaned = []

    async def work() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    with pytest.raises(ClientDisconnect):
        async with asyncio.timeout(5):
            await cancel_on_disconnect(make_request(disconnects=True), work())
    assert cleaned


async def test_cancelling_the_call_cancels_the_work() -> None:
    started, stopped = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        started.set()
        try:
            await asyncio.sleep(30)
        finally:
            stopped.set()

    waiting = asyncio.create_task(cancel_on_disconnect(make_request(), work()))
    async with asyncio.timeout(5):
        await started.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await stopped.wait()
