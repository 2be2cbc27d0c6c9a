"""A request is one trace across the API and the worker, as a receiver of OTLP sees it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from infra.local.stack import Stack
from tests.stacks import PANDA, client_of, running
from tests.worker.support import wait_until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
SECRET = "Zx9-planted-Qw7"


class Span:
    """One span that the receiver got."""

    def __init__(self, service: str, span: Any) -> None:
        self.service = service
        self.name: str = span.name
        self.trace: str = span.trace_id.hex()
        self.id: str = span.span_id.hex()
        self.parent: str = span.parent_span_id.hex()
        self.start: int = span.start_time_unix_nano
        self.end: int = span.end_time_unix_nano
        self.failed: bool = span.status.code == 2
        self.attributes = {each.key: each.value for each in span.attributes}
        self.text = str(span)


class Receiver:
    """A receiver of OTLP over HTTP."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.spans: list[Span] = []

    def of(self, trace: str) -> dict[str, Span]:
        """The spans of a trace, by name."""
        return {span.name: span for span in list(self.spans) if span.trace == trace}


@contextmanager
def receiving() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = ExportTraceServiceRequest()
            request.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
            for resource in request.resource_spans:
                names = {each.key: each.value.string_value for each in resource.resource.attributes}
                for scope in resource.scope_spans:
                    found.spans += [Span(names["service.name"], span) for span in scope.spans]
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Receiver(server.server_port)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as started:
        yield started


@pytest.fixture(scope="module")
def stack(receiver: Receiver) -> Iterator[Stack]:
    environment = {
        "RERANKQ_TRACING": "otlp",
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "RERANKQ_LOG_FORM": "json",
    }
    with running(engine=None, environment=environment) as started:
        yield started


def test_a_waiting_call_is_one_trace_from_its_caller_to_the_engine(stack: Stack, receiver: Receiver) -> None:
    body = PANDA | {"query": SECRET, "documents": [SECRET, "another"]}
    with client_of(stack) as client:
        before = time.time_ns()
        response = client.post("/v1/rerank", json=body, headers={"traceparent": f"00-{TRACE}-{CALLER}-01"})
        after = time.time_ns()
    wait_until(lambda: len(receiver.of(TRACE)) >= 10, 20)
    spans = receiver.of(TRACE)
    assert {span.service: span.service for span in spans.values()} == {
        "rerankq-api": "rerankq-api",
        "rerankq-worker": "rerankq-worker",
    }
    names = ["admission", "submit", "wait", "rank", "shard", "queue", "tokenize", "engine", "finish"]
    assert set(names) | {"POST /v1/rerank"} == set(spans)
    whole = spans["POST /v1/rerank"]
    assert (whole.parent, response.headers["traceparent"]) == (CALLER, f"00-{TRACE}-{whole.id}-01")
    parents = {name: next(each.name for each in spans.values() if each.id == spans[name].parent) for name in names}
    assert parents == {
        "admission": whole.name,
        "submit": whole.name,
        "wait": whole.name,
        "rank": whole.name,
        "shard": "submit",
        "queue": "shard",
        "tokenize": "shard",
        "engine": "shard",
        "finish": "shard",
    }
    assert all(before <= span.start <= span.end for span in spans.values())
    assert before <= whole.start <= after
    assert spans["queue"].end <= spans["tokenize"].end <= spans["engine"].end <= spans["finish"].end
    assert spans["shard"].attributes["rerankq.pairs"].int_value == 2
    assert whole.attributes["http.response.status_code"].int_value == 200
    assert SECRET not in "".join(span.text for span in receiver.spans)


def test_the_trace_is_in_the_log_of_the_request(stack: Stack) -> None:
    trace = TRACE[::-1]
    with client_of(stack) as client:
        client.get("/v1/models", headers={"traceparent": f"00-{trace}-{CALLER}-01"})
    wait_until(lambda: f'"trace": "{trace}"' in stack.log("api").read_text(), 10)


def test_metrics_name_the_trace_of_a_slow_request_where_openmetrics_is_asked_for(stack: Stack) -> None:
    trace = "2" + TRACE[1:]
    with client_of(stack) as client:
        client.post("/v1/rerank", json=PANDA, headers={"traceparent": f"00-{trace}-{CALLER}-01"})
        openmetrics = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}).text
        plain = client.get("/metrics").text
    parsed = text_string_to_metric_families(openmetrics)  # type: ignore[no-untyped-call]
    families = {family.name: family for family in parsed}
    samples = families["rerankq_request_duration_seconds"].samples
    exemplars = [sample.exemplar for sample in samples if sample.exemplar]
    assert trace in [exemplar.labels["trace_id"] for exemplar in exemplars]
    assert "trace_id" not in plain


def test_a_refused_request_is_a_failed_span_without_its_text(stack: Stack, receiver: Receiver) -> None:
    trace = "1" + TRACE[1:]
    with client_of(stack) as client:
        headers = {"traceparent": f"00-{trace}-{CALLER}-01"}
        assert client.post("/v1/rerank", json=PANDA | {"model": SECRET}, headers=headers).status_code == 404
    wait_until(lambda: "admission" in receiver.of(trace), 20)
    assert receiver.of(trace)["admission"].failed
    assert SECRET not in "".join(span.text for span in receiver.spans)


@pytest.mark.parametrize("given", ["", "nonsense", f"00-{'0' * 32}-{CALLER}-01", f"00-{TRACE}-{CALLER}"])
def test_without_a_valid_parent_the_trace_begins_here(stack: Stack, given: str) -> None:
    with client_of(stack) as client:
        own = client.get("/health", headers={"traceparent": given}).headers["traceparent"]
    assert own.split("-")[1] not in ("0" * 32, TRACE)


def test_without_the_setting_nothing_is_traced() -> None:
    with running() as plain, client_of(plain) as client:
        response = client.post("/v1/rerank", json=PANDA, headers={"traceparent": f"00-{TRACE}-{CALLER}-01"})
        assert "traceparent" not in response.headers
