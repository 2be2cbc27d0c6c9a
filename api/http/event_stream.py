"""Server-sent events: the format of one event, and the response that streams them."""

import time
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing, suppress
from typing import Any

import pydantic_core
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from shared.errors import RerankqError

KEEP_ALIVE_SECONDS = 15.0
_COMMENT = b": waiting\n\n"

Events = AsyncGenerator[bytes | None, None]
"""Encoded events. None, at least once a second, while there is nothing to send."""


def encode_event(name: str, data: Any, event_id: str | None = None) -> bytes:
    """One event with JSON data."""
    # JSON has no line breaks outside strings, and escapes those within them.
    number = f"id: {event_id}\n" if event_id else ""
    return f"event: {name}\n{number}data: ".encode() + pydantic_core.to_json(data) + b"\n\n"


class EventStream(StreamingResponse):
    """Streams events until their source ends, `seconds` have passed, or the client disconnects.

    Sends a comment after KEEP_ALIVE_SECONDS without an event, so that no proxy closes the connection. Closes the source
    and `held` in each case. A RerankqError of the source ends the stream.
    """

    def __init__(self, events: Events, held: ExitStack, seconds: float | None = None) -> None:
        # nginx would buffer the events otherwise.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        self._chunks = _chunks(events, seconds)
        self._held = held
        super().__init__(self._chunks, headers=headers, media_type="text/event-stream")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._held:
            await super().__call__(scope, receive, send)

    async def stream_response(self, send: Send) -> None:
        # When a slow client disconnects, the generator is suspended at a yield, and would be closed much later.
        async with aclosing(self._chunks):
            await super().stream_response(send)


async def _chunks(events: Events, seconds: float | None) -> AsyncGenerator[bytes, None]:
    started = sent_at = time.monotonic()
    # Nothing else can be told once the response has begun. A reader that comes back gets the error as the status.
    with suppress(RerankqError):
        async with aclosing(events):
            async for event in events:
                now = time.monotonic()
                if event is not None:
                    yield event
                    sent_at = now
                elif now - sent_at >= KEEP_ALIVE_SECONDS:
                    yield _COMMENT
                    sent_at = now
                if seconds is not None and now - started >= seconds:
                    return
