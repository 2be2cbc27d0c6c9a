"""HTTP/1.1 protocol class for uvicorn.

Ignores `Upgrade: h2c`, returns JSON errors for malformed requests, and limits what a peer can occupy: connections, the
size and time of headers, and responses that it does not read. Java's HTTP client sends `Upgrade: h2c` with the first
request of a connection; httptools stops parsing there and drops the body. api/http/request_body.py limits bodies.
"""

import asyncio
import fcntl
import sys
import termios
from contextlib import suppress
from http import HTTPStatus

import httptools
from pydantic_core import to_json
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.http.error_responses import headers_of, status_of, superset_body
from shared.errors import InvalidRequest, Overloaded, RequestTimedOut, RerankqError

HEADERS_SECONDS = 30.0
"""The time for a request's headers, from the opening of the connection or the first byte of a later request."""
MAX_HEADER_BYTES = 65_536
WRITE_SECONDS = 30.0
"""How often a peer that reads slowly is checked: one that has read less than MIN_READ_BYTES since is disconnected."""
MIN_READ_BYTES = 30_000
MAX_CONNECTIONS = 10_000
RETRY_AFTER_SECONDS = 1


def limited_to(connections: int) -> "type[Http11]":
    """The protocol class for a process that serves at most so many connections at once."""
    return type("LimitedHttp11", (Http11,), {"max_connections": connections})


class Http11(HttpToolsProtocol):
    """One connection. Every upgrade is ignored, WebSocket included."""

    max_connections = MAX_CONNECTIONS
    _headers_timer: asyncio.TimerHandle | None = None
    _header_bytes = 0
    """The data that arrived since the headers' timer started, without the data that started it."""
    _write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            message = f"at most {self.max_connections} connections to one process of the API"
            self._reject(Overloaded(message, retry_after=RETRY_AFTER_SECONDS))
            return
        self._start_headers_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_headers_timer()
        self._stop_write_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        # The parser keeps incomplete headers, however long they are.
        self._header_bytes += len(data)
        unparsed: bytes | None = data
        while unparsed is not None:
            unparsed = self._feed(unparsed)
        if self._headers_timer is not None and self._header_bytes > MAX_HEADER_BYTES:
            self._stop_headers_timer()
            self._reject(InvalidRequest(f"the request headers are over the limit of {MAX_HEADER_BYTES} bytes"))

    def pause_writing(self) -> None:
        super().pause_writing()
        self._check_reading_later()

    def resume_writing(self) -> None:
        self._stop_write_timer()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        # Closing waits for the peer to read, which may never happen.
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

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

    def _check_reading_later(self) -> None:
        self._write_timer = self.loop.call_later(WRITE_SECONDS, self._check_reading, self._unread())

    def _unread(self) -> int:
        """The bytes that the peer has not acknowledged, those in the kernel's buffer included where it tells them."""
        buffered = self.transport.get_write_buffer_size()
        with suppress(OSError, ValueError):
            answer = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
            buffered += int.from_bytes(answer, sys.byteorder)
        return buffered

    def _check_reading(self, before: int) -> None:
        if before - self._unread() < MIN_READ_BYTES:
            self.transport.abort()
        else:
            self._check_reading_later()

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _start_headers_timer(self) -> None:
        if self._headers_timer is None:
            self._header_bytes = 0
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

    def _reject(self, error: RerankqError) -> None:
        body = to_json(superset_body(error))
        status = HTTPStatus(status_of(error))
        headers = {
            "content-type": "application/json",
            "content-length": len(body),
            **{name.lower(): value for name, value in headers_of(error).items()},
            "connection": "close",
        }
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
        self.transport.write(head.encode() + body)
        self.transport.close()
