"""A receiver of webhooks on loopback for tests: it records what arrives, and answers as the test wants."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True, slots=True)
class Received:
    """One request; `count` is how many came with the same id so far, this one included. `at` is monotonic."""

    id: str
    headers: dict[str, str]
    body: bytes
    count: int
    at: float

    @property
    def event(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(self.body)
        return event


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a request; `delay` in seconds comes before it."""

    status: int = 204
    headers: tuple[tuple[str, str], ...] = ()
    delay: float = 0.0


class Receiver:
    """A context manager. `behave` maps each request to its answer; by default all are accepted."""

    def __init__(self, behave: Callable[[Received], Reply] = lambda _: Reply(), port: int = 0) -> None:
        self.received: list[Received] = []
        self.most_at_once = 0
        self._behave = behave
        self._at_once = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> "Receiver":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def ids(self) -> list[str]:
        return [request.id for request in list(self.received)]

    def subjects(self) -> set[str]:
        """The jobs and batches that the events are about."""
        return {request.event["data"]["id"] for request in list(self.received)}

    def wait_for(self, condition: Callable[["Receiver"], bool], seconds: float = 15.0) -> bool:
        """Whether the condition becomes true within `seconds`."""
        deadline = time.monotonic() + seconds
        while not condition(self):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def _receive(self, headers: dict[str, str], body: bytes) -> Reply:
        with self._lock:
            message_id = headers.get("webhook-id", "")
            count = self.ids().count(message_id) + 1
            request = Received(message_id, headers, body, count, time.monotonic())
            self.received.append(request)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            reply = self._behave(request)
            if reply.delay:
                self._closing.wait(reply.delay)
            return reply
        finally:
            with self._lock:
                self._at_once -= 1

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                reply = receiver._receive({name.lower(): value for name, value in self.headers.items()}, body)
                try:
                    self.send_response(reply.status)
                    for name, value in (*reply.headers, ("content-length", "0")):
                        self.send_header(name, value)
                    self.end_headers()
                except OSError:
                    # The sender has given up.
                    return

            def log_message(self, *_: Any) -> None:
                return

        return Handler
