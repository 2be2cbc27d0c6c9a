"""A proxy that returns 429 for every request, in the format of the request's dialect.

It returns the status, headers and body that an overloaded service would return. Below `/once/NAME` only the first
request for each NAME gets 429; later ones are forwarded to the service. The dialects render the errors.
"""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from api.dialects.registry import dialect_for_path
from api.http.error_responses import headers_of
from shared.errors import RateLimited

RETRY_AFTER = 1
_ONCE = re.compile(r"/once/([^/]+)")
_FORWARDED = ("Authorization", "Api-Key", "Content-Type")
MESSAGE = "too many requests; try again in a second"


class _LimitingServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, service_url: str) -> None:
        super().__init__(("127.0.0.1", 0), _LimitingHandler)
        self.service_address = urlsplit(service_url).netloc
        self.limited: set[str] = set()

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that disconnect."""


class _LimitingHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _LimitingServer

    def do_POST(self) -> None:
        self._handle(self._read_body())

    def do_GET(self) -> None:
        self._handle(b"")

    def do_DELETE(self) -> None:
        self._handle(b"")

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts: list[bytes] = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _handle(self, body: bytes) -> None:
        path = self.path
        if match := _ONCE.match(path):
            path = path[match.end() :]
            if match[1] in self.server.limited:
                self._forward(path, body)
                return
            self.server.limited.add(match[1])
        self._reject(path, body)

    def _reject(self, path: str, body: bytes) -> None:
        error = RateLimited(MESSAGE, policy='"requests";q=1;w=1', retry_after=RETRY_AFTER)
        # The body of an upload is not JSON.
        fields = json.loads(body) if body.startswith(b"{") else {}
        dialect = dialect_for_path(urlsplit(path).path).dialect_for_body(fields)
        self._send_response(
            dialect.status_of(error), headers_of(error), json.dumps(dialect.render_error(error)).encode()
        )

    def _forward(self, path: str, body: bytes) -> None:
        service = HTTPConnection(self.server.service_address, timeout=30)
        headers = {name: self.headers[name] for name in _FORWARDED if name in self.headers}
        service.request(self.command, path, body or None, headers)
        response = service.getresponse()
        self._send_response(response.status, {}, response.read())
        service.close()

    def _send_response(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        described = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        for name, value in (headers | described).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Do not log requests."""


@contextmanager
def limiting_proxy(service_url: str) -> Iterator[str]:
    """Run the proxy and yield its URL."""
    server = _LimitingServer(service_url)
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        serving.join(5)
