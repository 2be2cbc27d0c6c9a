"""A door that answers every call with 429, in the words of the dialect that was spoken.

The service has no limit yet that it could be brought to: this stands in for it, with the body, the status and the
headers that the service would send. Below `/once/NAME` it answers so once for each NAME, and passes on what comes
after that. Owns the server; what an error looks like is up to the dialects.
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
from shared.errors import Overloaded

RETRY_AFTER = 1
_ONCE = re.compile(r"/once/([^/]+)")
_PASSED = ("Authorization", "Api-Key", "Content-Type")
MESSAGE = "too much is asked at once; try again in a second"


class _Front(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, behind: str) -> None:
        super().__init__(("127.0.0.1", 0), _Door)
        self.behind = urlsplit(behind).netloc
        self.met: set[str] = set()

    def handle_error(self, request: object, client_address: object) -> None:
        """Whoever hung up knows."""


class _Door(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Front

    def do_POST(self) -> None:
        self._take(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def do_GET(self) -> None:
        self._take(b"")

    def _take(self, body: bytes) -> None:
        path = self.path
        if match := _ONCE.match(path):
            path = path[match.end() :]
            if match[1] in self.server.met:
                self._pass_on(path, body)
                return
            self.server.met.add(match[1])
        self._limit(path, body)

    def _limit(self, path: str, body: bytes) -> None:
        error = Overloaded(MESSAGE, retry_after=RETRY_AFTER)
        dialect = dialect_for_path(urlsplit(path).path).dialect_for_body(json.loads(body or b"{}"))
        self._answer(dialect.status_of(error), headers_of(error), json.dumps(dialect.render_error(error)).encode())

    def _pass_on(self, path: str, body: bytes) -> None:
        behind = HTTPConnection(self.server.behind, timeout=30)
        headers = {name: self.headers[name] for name in _PASSED if name in self.headers}
        behind.request(self.command, path, body or None, headers)
        answer = behind.getresponse()
        self._answer(answer.status, {}, answer.read())
        behind.close()

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        described = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        for name, value in (headers | described).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nobody reads it."""


@contextmanager
def limiting_front(behind: str) -> Iterator[str]:
    """Its address; `behind` is the service's."""
    server = _Front(behind)
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        serving.join(5)
