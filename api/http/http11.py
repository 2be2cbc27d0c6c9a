"""HTTP/1.1 on the connection: uvicorn's, and what it does not do for itself.

It answers who offers another protocol in this one, says in JSON what is no HTTP, and waits for a request with an end.
Java's own HTTP client, and so half of that world, offers HTTP/2 with every first request (`Upgrade: h2c`). The parser
takes that for the end of HTTP and drops the body; here the offer is taken away and the request read as it is.

Knows bytes and connections; nothing of paths, dialects or jobs. A body is waited for where it is read:
api/http/request_body.py.
"""

import asyncio
from http import HTTPStatus

import httptools
from pydantic_core import to_json
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.http.error_responses import status_of, superset_body
from shared.errors import InvalidRequest, RequestError, RequestTimedOut

HEAD_SECONDS = 30.0
"""From the opening of a connection, or the first byte of a later request, to the end of its headers."""


class Http11(HttpToolsProtocol):
    """One connection."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_has_come()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        left: bytes | None = data
        while left is not None:
            left = self._feed(left)

    def on_message_begin(self) -> None:
        self._expect_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._head_has_come()
        if not self.parser.should_upgrade():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        # After an offer the parser believes that there is no body.
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(InvalidRequest(msg))

    def _feed(self, data: bytes) -> bytes | None:
        """Read on; the answer is what is to be read again, after an offer."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            return self._without_offer(data[offer.args[0] :])
        except httptools.HttpParserError:
            self._refuse(InvalidRequest("the request is not valid HTTP"))
        return None

    def _without_offer(self, rest: bytes) -> bytes | None:
        """The request that has just begun as if nothing had been offered; `rest` is what came after its head."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            # An offer without a header, to be a proxy.
            self._refuse(InvalidRequest("CONNECT is not allowed here"))
            return None
        version = self.parser.get_http_version().encode()
        head = [method + b" " + self.url + b" HTTP/" + version]
        head += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        return b"\r\n".join(head) + b"\r\n\r\n" + rest

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
