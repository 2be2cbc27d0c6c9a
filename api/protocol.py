"""HTTP/1.1 on the connection: uvicorn's, but whoever offers another protocol is answered in this one.

Java's own HTTP client, and so half of that world, offers HTTP/2 with every first request (`Upgrade: h2c`). The parser
takes that for the end of HTTP and drops the body; here the offer is taken away and the request read as it is. What is
no HTTP at all gets an error in JSON, as everything else does.
"""

import httptools
from pydantic_core import to_json
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.errors import superset_body
from shared.errors import InvalidRequest


class Http11(HttpToolsProtocol):
    """One connection."""

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        left: bytes | None = data
        while left is not None:
            left = self._feed(left)

    def on_headers_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        # After an offer the parser believes that there is no body.
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _feed(self, data: bytes) -> bytes | None:
        """Read on; the answer is what is to be read again, after an offer."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            return self._without_offer(data[offer.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("the request is not valid HTTP")
        return None

    def _without_offer(self, rest: bytes) -> bytes | None:
        """The request that has just begun as if nothing had been offered; `rest` is what came after its head."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            # An offer without a header, to be a proxy.
            self.send_400_response("CONNECT is not allowed here")
            return None
        version = self.parser.get_http_version().encode()
        head = [method + b" " + self.url + b" HTTP/" + version]
        head += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        return b"\r\n".join(head) + b"\r\n\r\n" + rest

    def send_400_response(self, msg: str) -> None:
        body = to_json(superset_body(InvalidRequest(msg)))
        head = (
            "HTTP/1.1 400 Bad Request\r\n"
            "content-type: application/json\r\n"
            f"content-length: {len(body)}\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
