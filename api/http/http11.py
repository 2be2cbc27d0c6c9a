"""HTTP/1.1 protocol class for uvicorn.

Ignores `Upgrade: h2c`, returns JSON errors for malformed requests, and times out incomplete headers. Java's HTTP
client sends `Upgrade: h2c` with the first request of a connection; httptools stops parsing there and drops the body.
api/http/request_body.py times out incomplete bodies.
"""

import asyncio
from http import HTTPStatus

import httptools
from pydantic_core import to_json
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.http.error_responses import status_of, superset_body
from shared.errors import InvalidRequest, RequestError, RequestTimedOut

HEADERS_SECONDS = 30.0
"""The time for a request's headers, from the opening of the connection or the first byte of a later request."""


class Http11(HttpToolsProtocol):
    """One connection. Every upgrade is ignored, WebSocket included."""

    _headers_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_headers_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_headers_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        unparsed: bytes | None = data
        while unparsed is not None:
            unparsed = self._feed(unparsed)

    def on_message_begin(self) -> None:
        self._start_headers_timer()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._stop_headers_timer()
        if not self.parser.should_upgrade():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        # After an upgrade header, the parser reports a message without a body.
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._reject(InvalidRequest(msg))

    def _feed(self, data: bytes) -> bytes | None:
        """Parse the data. Returns what to parse again after an ignored upgrade, None when all is parsed."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return self._without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._reject(InvalidRequest("the request is not valid HTTP"))
        return None

    def _without_upgrade(self, after_headers: bytes) -> bytes | None:
        """The current request without its Upgrade header; `after_headers` is the data that follows its headers."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            # The parser treats CONNECT as an upgrade, too.
            self._reject(InvalidRequest("CONNECT is not allowed here"))
            return None
        version = self.parser.get_http_version().encode()
        head = [method + b" " + self.url + b" HTTP/" + version]
        head += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        return b"\r\n".join(head) + b"\r\n\r\n" + after_headers

    def _start_headers_timer(self) -> None:
        if self._headers_timer is None:
            self._headers_timer = self.loop.call_later(HEADERS_SECONDS, self._headers_timed_out)

    def _stop_headers_timer(self) -> None:
        if self._headers_timer is not None:
            self._headers_timer.cancel()
            self._headers_timer = None

    def _headers_timed_out(self) -> None:
        self._headers_timer = None
        if self.cycle is None or self.cycle.response_complete:
            self._reject(RequestTimedOut(f"no complete request headers arrived within {HEADERS_SECONDS:g} s"))
        else:
            # The previous response is still being sent: an error cannot be inserted.
            self.transport.close()

    def _reject(self, error: RequestError) -> None:
        body = to_json(superset_body(error))
        status = HTTPStatus(status_of(error))
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\n"
            "content-type: application/json\r\n"
            f"content-length: {len(body)}\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
