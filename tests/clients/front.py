"""A door that answers every call with 429, in the words of the dialect that was spoken.

The service has no limit yet that it could be brought to: this stands in for it, with the body, the status and the
headers that the service would send. Owns the server; what an error looks like is up to the dialects.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from api.dialects.registry import by_path
from api.errors import headers_of
from shared.errors import Overloaded

MESSAGE = "too much is asked at once; try again in a second"


class _Limited(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def do_GET(self) -> None:
        self._answer(b"{}")

    def _answer(self, body: bytes) -> None:
        error = Overloaded(MESSAGE, retry_after=1)
        dialect = by_path(urlsplit(self.path).path).spoken_in(json.loads(body))
        rendered = json.dumps(dialect.render_error(error)).encode()
        self.send_response(dialect.status_of(error))
        for name, value in headers_of(error).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(rendered)))
        self.end_headers()
        self.wfile.write(rendered)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nobody reads it."""


@contextmanager
def limiting_front() -> Iterator[str]:
    """Its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Limited)
    server.daemon_threads = True
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        serving.join(5)
