"""What uvicorn's HTTP does not do for itself: say in JSON what is no HTTP, and wait for a request with an end.

Knows bytes and connections; nothing of paths, dialects or jobs. A body is waited for where it is read: api/exchange.py.
"""

import asyncio
from http import HTTPStatus
from typing import Any

import pydantic_core
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.errors import status_of, superset_body
from shared.errors import InvalidRequest, RequestError, RequestTimedOut

HEAD_SECONDS = 30.0
"""From the opening of a connection, or the first byte of a later request, to the end of its headers."""


class Protocol(HttpToolsProtocol):
    """One connection."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_has_come()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self._expect_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._head_has_come()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(InvalidRequest("this is no valid HTTP request"))

    def _expect_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._no_head)

    def _head_has_come(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _no_head(self) -> None:
        self._head_timer = None
        if self.cycle is None or self.cycle.response_complete:
            self._refuse(RequestTimedOut(f"no complete request came within {HEAD_SECONDS:g} s"))
        else:
            # In the middle of another answer: nothing can be said.
            self.transport.close()

    def _refuse(self, error: RequestError) -> None:
        body = pydantic_core.to_json(superset_body(error))
        status = HTTPStatus(status_of(error))
        head: dict[str, Any] = {
            "content-type": "application/json",
            "content-length": len(body),
            "connection": "close",
        }
        lines = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{name}: {value}" for name, value in head.items())]
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        self.transport.close()
