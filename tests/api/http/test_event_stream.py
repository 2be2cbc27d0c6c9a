"""The response that streams events: what it sends, and what it closes."""

import asyncio
from contextlib import ExitStack
from typing import Any

import pytest

from api.http.event_stream import Events, EventStream, encode_event
from shared.errors import JobNotFound

SCOPE: dict[str, Any] = {"type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}}


class Connection:
    """The server's side of a connection. `full`: the client reads nothing, so that sending a body never returns."""

    def __init__(self, *, full: bool = False) -> None:
        self.sent = b""
        self.disconnected = asyncio.Event()
        self._full = full

    async def receive(self) -> dict[str, Any]:
        await self.disconnected.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        body = message.get("body", b"")
        if body and self._full:
            await asyncio.Event().wait()
        self.sent += body


class Source:
    """Yields the events, then waits for ever unless it ends with an error."""

    def __init__(self, *events: bytes, error: Exception | None = None) -> None:
        self._given, self._error = events, error
        self.closed: list[str] = []

    async def events(self) -> Events:
        try:
            for event in self._given:
                yield event
            if self._error is not None:
                raise self._error
            await asyncio.Event().wait()
        finally:
            self.closed.append("source")

    def stream(self) -> EventStream:
        held = ExitStack()
        held.callback(self.closed.append, "held")
        return EventStream(self.events(), held)


def test_event_is_one_block_of_lines() -> None:
    assert encode_event("end", {"a": "b\nc"}) == b'event: end\ndata: {"a":"b\\nc"}\n\n'
    assert encode_event("result", [1], "7") == b"event: result\nid: 7\ndata: [1]\n\n"


@pytest.mark.parametrize("full", [False, True], ids=["waiting for an event", "waiting for a slow client"])
async def test_disconnect_closes_source_and_resources(full: bool) -> None:
    source, connection = Source(b"one"), Connection(full=full)
    running = asyncio.create_task(source.stream()(SCOPE, connection.receive, connection.send))
    await asyncio.sleep(0.05)
    assert source.closed == []
    connection.disconnected.set()
    async with asyncio.timeout(5):
        await running
    assert source.closed == ["source", "held"]
    assert connection.sent == (b"" if full else b"one")


async def test_error_ends_the_stream() -> None:
    source, connection = Source(b"one", error=JobNotFound("deleted")), Connection()
    async with asyncio.timeout(5):
        await source.stream()(SCOPE, connection.receive, connection.send)
    assert (connection.sent, source.closed) == (b"one", ["source", "held"])
