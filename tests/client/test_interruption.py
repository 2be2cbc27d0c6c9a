"""Ctrl-C while `python -m client rank` waits for the result."""

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from infra.local.stack import Stack
from tests.client.command import running_command


class StubService(ThreadingHTTPServer):
    """A service whose only job never ends."""

    daemon_threads = True

    def __init__(self) -> None:
        self.polled, self.canceled, self._closing = threading.Event(), threading.Event(), threading.Event()
        super().__init__(("127.0.0.1", 0), StubHandler)
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> "StubService":
        self._serving = threading.Thread(target=self.serve_forever)
        self._serving.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self.shutdown()
        self._serving.join(5)
        self.server_close()

    def answer(self, path: str) -> tuple[int, str]:
        """The HTTP status, and the status of the job."""
        if path.endswith("/cancel"):
            self.canceled.set()
            return 200, "canceled"
        if path.startswith("/v1/jobs/"):
            self.polled.set()
            self._closing.wait(30)
        return 202, "running"


class StubHandler(BaseHTTPRequestHandler):
    server: StubService

    def do_GET(self) -> None:
        status, state = self.server.answer(self.path)
        progress = {"pairs_total": 1, "pairs_done": 0, "shards_total": 1, "shards_done": 0}
        job = {"id": "job-1", "status": state, "model": "m", "created": 0, "progress": progress}
        with suppress(OSError):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(job).encode())

    do_POST = do_GET

    def log_message(self, format: str, *arguments: object) -> None:
        """Do not log requests."""


@pytest.fixture
def stub() -> Iterator[StubService]:
    with StubService() as server:
        yield server


@pytest.mark.parametrize(("extra", "canceled"), [([], True), (["--key", "mine"], False)])
def test_interruption_cancels_the_job_unless_it_has_an_idempotency_key(
    service: Stack, stub: StubService, extra: list[str], canceled: bool
) -> None:
    with running_command(service, "rank", "query", "a", "--url", stub.url, *extra) as process:
        assert stub.polled.wait(20)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=10)
    assert (process.returncode, stderr) == (130, "client: interrupted\n")
    assert stub.canceled.is_set() is canceled
