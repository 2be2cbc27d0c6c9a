"""Waiting for jobs by their events, with prepared answers; and both clients behind a proxy that has none."""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from client import errors
from client.calls import Answer
from client.records import Job
from infra.local.stack import Stack
from tests.client.conftest import ClientClass
from tests.client.fake_client import FakeClient, answer, error_answer, stream_answer
from tests.client.test_protocol import RANKING, REQUEST
from tests.client.test_protocol import job as old_job

EVENTS = "GET /v1/jobs/job-1/events"


def job(status: str) -> dict[str, Any]:
    return old_job(status) | {"events": "/v1/jobs/job-1/events"}


def progress(status: str) -> tuple[str, Any]:
    return ("progress", {"status": status, **old_job(status)["progress"]})


def end(status: str = "succeeded") -> tuple[str, Any]:
    return ("end", job(status))


RESULT = ("result", RANKING | {"model": "modèle"}, "1")


class TestFollowing:
    def test_ranking_comes_with_the_events(self) -> None:
        client = FakeClient(
            answer(202, job("queued")), stream_answer(progress("running"), progress("succeeded"), RESULT, end())
        )
        ranking = client.execute(client.protocol.rerank(REQUEST, 60))
        assert (ranking.id, ranking.model) == ("job-1", "modèle")
        assert client.requests[1:] == [EVENTS]

    def test_wait_needs_no_results(self) -> None:
        seen: list[str] = []
        client = FakeClient(
            answer(200, job("queued")), stream_answer(progress("running"), progress("failed"), end("failed"))
        )
        ended = client.execute(client.protocol.wait("job-1", 60, lambda job: seen.append(job.status)))
        assert (ended.status, seen) == ("failed", ["queued", "running"])
        assert client.requests == ["GET /v1/jobs/job-1", f"{EVENTS}?results=false"]

    def test_error_of_the_callers_function_is_raised(self) -> None:
        def fail(job: Job) -> None:
            if job.status == "running":
                raise ValueError("the caller's own")

        client = FakeClient(answer(200, job("queued")), stream_answer(progress("running"), end()))
        with pytest.raises(ValueError, match="the caller's own"):
            client.execute(client.protocol.wait("job-1", 60, fail))

    def test_job_that_has_ended_is_not_followed(self) -> None:
        client = FakeClient(answer(200, job("succeeded")))
        client.execute(client.protocol.wait("job-1", 60))
        assert len(client.calls) == 1

    def test_stream_that_breaks_is_continued_behind_the_last_event(self) -> None:
        client = FakeClient(
            answer(202, job("queued")),
            stream_answer(progress("succeeded"), RESULT),
            stream_answer(progress("succeeded"), end()),
            seconds=2,
        )
        assert client.execute(client.protocol.rerank(REQUEST, 60)).model == "modèle"
        assert [call.headers.get("Last-Event-ID") for call in client.calls] == [None, None, "1"]

    def test_timeout_is_that_of_the_caller(self) -> None:
        streams = [stream_answer(progress("running"))] * 3
        client = FakeClient(answer(200, job("queued")), *streams, seconds=4)
        with pytest.raises(errors.WaitTimedOut, match="the job job-1 is running; it continues"):
            client.execute(client.protocol.wait("job-1", 13))
        assert [call.headers["Prefer"] for call in client.calls[1:]] == ["wait=9", "wait=5", "wait=1"]
        assert [call.seconds for call in client.calls[1:]] == [11, 7, 3]

    def test_stream_has_an_end_even_if_the_caller_waits_for_ever(self) -> None:
        client = FakeClient(answer(200, job("queued")), stream_answer(end()))
        client.execute(client.protocol.wait("job-1", float("inf")))
        assert client.calls[1].headers["Prefer"] == "wait=3600"


class TestPolling:
    @pytest.mark.parametrize(
        "failed",
        [
            error_answer(404, "not_found"),
            error_answer(405, "method_not_allowed"),
            error_answer(503, "overloaded"),
            errors.ConnectionFailed("no data for 35 s"),
            Answer(200, {}, b"<html>a page of a proxy\n\n</html>"),
            Answer(200, {}, b"data: not JSON\n\n"),
            Answer(200, {}, b'event: end\ndata: ["not a job"]\n\n'),
            Answer(200, {}, b""),
            stream_answer(progress("running")),
        ],
        ids=["404", "405", "503", "silence", "page", "text", "JSON", "empty", "breaks at once"],
    )
    def test_job_is_polled_when_events_do_not_arrive(self, failed: Answer | BaseException) -> None:
        client = FakeClient(
            answer(202, job("queued")), failed, answer(200, job("succeeded")), answer(200, RANKING), seconds=0.2
        )
        assert client.execute(client.protocol.rerank(REQUEST, 60)).id == "job-1"
        assert client.requests[1:] == [EVENTS, "GET /v1/jobs/job-1", "GET /v1/jobs/job-1/results"]

    def test_service_that_names_no_events_is_not_asked_for_them(self) -> None:
        client = FakeClient(answer(200, old_job("queued")), answer(200, old_job("succeeded")))
        client.execute(client.protocol.wait("job-1", 60))
        assert client.requests == ["GET /v1/jobs/job-1"] * 2


class Front(ThreadingHTTPServer):
    """Passes requests on to a service. Its `status` answers those for events; 200 passes them on."""

    daemon_threads = True

    def __init__(self, port: int, status: int, *, breaks: bool) -> None:
        """`breaks`: events break after the first one."""
        super().__init__(("127.0.0.1", 0), FrontHandler)
        self.service_port, self.status, self.breaks = port, status, breaks
        self.paths: list[str] = []


class FrontHandler(BaseHTTPRequestHandler):
    server: Front

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.paths.append(self.path)
        if "/events" in self.path and self.server.status != 200:
            self.send_error(self.server.status)
            return
        service = HTTPConnection("127.0.0.1", self.server.service_port, timeout=30)
        service.request(self.command, self.path, body, dict(self.headers))
        response = service.getresponse()
        self.send_response(response.status)
        self.end_headers()
        with closing(service), suppress(OSError):
            while line := response.readline():
                self.wfile.write(line)
                if "/events" in self.path and self.server.breaks and not line.strip():
                    return

    do_POST = do_GET

    def log_message(self, format: str, *arguments: object) -> None:
        """Do not log requests."""


@contextmanager
def front(stack: Stack, status: int, *, breaks: bool = False) -> Iterator[Front]:
    with Front(stack.port, status, breaks=breaks) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield server
        finally:
            server.shutdown()
            serving.join(5)


def rank_slowly(server: Front, client_class: ClientClass) -> list[str]:
    """Rank, and return the paths of the requests behind the first one, without the job's id."""
    with client_class(f"http://127.0.0.1:{server.server_port}") as client:
        ranking = client.rerank("panda", ["hi", "a panda"])
    assert ranking.rows[0].index == 1
    return [path.replace(ranking.id, "ID") for path in server.paths[1:]]


def test_ranking_takes_one_request_for_the_events(slow_service: Stack, client_class: ClientClass) -> None:
    with front(slow_service, 200) as server:
        assert rank_slowly(server, client_class) == ["/v1/jobs/ID/events"]


@pytest.mark.parametrize(("status", "breaks"), [(404, False), (405, False), (200, True)], ids=["404", "405", "broken"])
def test_ranking_is_polled_for_without_events(
    slow_service: Stack, client_class: ClientClass, status: int, breaks: bool
) -> None:
    with front(slow_service, status, breaks=breaks) as server:
        first, *polls, last = rank_slowly(server, client_class)
    assert (first, last) == ("/v1/jobs/ID/events", "/v1/jobs/ID/results")
    assert set(polls) == {"/v1/jobs/ID"}
