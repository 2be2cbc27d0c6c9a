"""The load generator against a small HTTP server on a real socket: its requests, counts and errors."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import load as generator
from bench.spec import Freshness, Load, Outcome
from bench.words import VOCABULARY_SIZE

Respond = Callable[[dict[str, Any]], bytes]


@pytest.fixture
def vocabulary(tmp_path: Path) -> str:
    letters = "abcdefghijklm"
    words = [f"{a}{b}{c}" for a in letters for b in letters for c in letters]
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": dict.fromkeys(words, 0)}}))
    assert len(words) >= VOCABULARY_SIZE
    return str(tmp_path)


def http(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


def ranked(request: dict[str, Any]) -> bytes:
    """Return a correct response."""
    rows = [{"index": index, "relevance_score": 0.5} for index in range(len(request["documents"]))]
    return http(json.dumps({"results": rows}).encode(), headers="server-timing: queue;dur=1, inference;dur=0.25\r\n")


async def run_load(respond: Respond, vocabulary: str, **fields: Any) -> tuple[Outcome, list[dict[str, Any]]]:
    """Run a load on a server that responds with `respond`. Returns its outcome and the received requests."""
    seen: list[dict[str, Any]] = []
    connections_closed: list[asyncio.Future[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        connections_closed.append(closed)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = int(head.partition("Content-Length: ")[2].splitlines()[0])
                seen.append(json.loads(await reader.readexactly(length)))
                # Send the response in two pieces, as a network may.
                reply = respond(seen[-1])
                writer.write(reply[:20])
                await writer.drain()
                await asyncio.sleep(0)
                writer.write(reply[20:])
        except asyncio.IncompleteReadError:
            writer.close()
            await writer.wait_closed()
            closed.set_result(None)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        plain: dict[str, Any] = {
            "port": server.sockets[0].getsockname()[1],
            "model": "m",
            "vocabulary": vocabulary,
            "first": 0,
            "connections": 4,
            "documents": 3,
            "words": 5,
            "seconds": 5.0,
            "warm_up": 0.0,
            "requests": 50,
            "timeout": 2.0,
        }
        outcome = await generator.run(Load(**plain | fields))
        await asyncio.gather(*connections_closed)
    return outcome, seen


async def test_every_request_is_counted_once_with_its_pairs(vocabulary: str) -> None:
    outcome, seen = await run_load(ranked, vocabulary)
    assert (outcome.requests, outcome.pairs, outcome.failed) == (50, 150, 0)
    assert len(seen) == 50
    assert outcome.seconds > 0
    assert set(outcome.latency_ms) == {"p50", "p90", "p99", "max", "mean"}


async def test_no_pair_is_sent_twice(vocabulary: str) -> None:
    _, seen = await run_load(ranked, vocabulary)
    pairs = {(request["query"], document) for request in seen for document in request["documents"]}
    assert len(pairs) == 150


async def test_a_request_allows_to_cut_long_texts_only_when_asked_for(vocabulary: str) -> None:
    _, plain = await run_load(ranked, vocabulary)
    _, cut = await run_load(ranked, vocabulary, truncate=True)
    assert {request.get("truncate_prompt_tokens") for request in plain} == {None}
    assert {request.get("truncate_prompt_tokens") for request in cut} == {-1}


async def test_only_the_queries_are_new_when_asked_for(vocabulary: str) -> None:
    _, seen = await run_load(ranked, vocabulary, fresh=Freshness.QUERY)
    assert len({request["query"] for request in seen}) == 50
    assert len({tuple(request["documents"]) for request in seen}) == 1


async def test_repeated_requests_are_identical(vocabulary: str) -> None:
    _, seen = await run_load(ranked, vocabulary, fresh=Freshness.NOTHING)
    assert all(request == seen[0] for request in seen)


async def test_the_warm_up_is_not_counted(vocabulary: str) -> None:
    outcome, seen = await run_load(ranked, vocabulary, warm_up=0.1)
    assert outcome.requests == 50
    assert len(seen) > 50


async def test_the_engines_time_is_subtracted_when_the_server_reports_it(vocabulary: str) -> None:
    outcome, _ = await run_load(ranked, vocabulary)
    assert outcome.outside_ms["mean"] == pytest.approx(outcome.latency_ms["mean"] - 0.25)


async def test_a_load_in_seconds_waits_for_the_responses_to_requests_sent(vocabulary: str) -> None:
    outcome, seen = await run_load(ranked, vocabulary, requests=0, seconds=0.2)
    assert outcome.requests == len(seen) > 0
    assert 0.1 < outcome.seconds < 2


async def test_jobs_expect_202_and_the_last_one_is_reported(vocabulary: str) -> None:
    outcome, _ = await run_load(lambda _: http(b'{"id": "job-1"}', "202 Accepted"), vocabulary, respond_async=True)
    assert (outcome.requests, outcome.failed, outcome.last_job) == (50, 0, "/v1/jobs/job-1")


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (http(b'{"error": "busy"}', "503 Service Unavailable"), "503 Service Unavailable"),
        (http(b'{"results": [{"relevance_score": 1}]}'), "1 results for 3 documents"),
        (
            http(b'{"results": [{"relevance_score": 1}, {"relevance_score": NaN}, {"relevance_score": 1}]}'),
            "not a finite number",
        ),
        (http(b'{"results": [{}, {}, {}]}'), "not a rerank response"),
        (http(b"<html>"), "not a rerank response"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "without Content-Length"),
    ],
)
async def test_any_other_response_is_an_error(vocabulary: str, response: bytes, reason: str) -> None:
    outcome, _ = await run_load(lambda _: response, vocabulary, connections=1, requests=1)
    assert (outcome.requests, outcome.failed) == (0, 1)
    assert reason in outcome.errors[0]


async def test_a_missing_response_is_an_error_after_the_timeout(vocabulary: str) -> None:
    outcome, _ = await run_load(lambda _: b"", vocabulary, connections=1, requests=1, seconds=0.1, timeout=0.2)
    assert outcome.failed == 1
    assert "no response within" in outcome.errors[0]


async def test_errors_in_the_warm_up_fail_the_load(vocabulary: str) -> None:
    count = 0

    def first_fails(request: dict[str, Any]) -> bytes:
        nonlocal count
        count += 1
        return ranked(request) if count > 1 else http(b"{}", "500 Oops")

    outcome, _ = await run_load(first_fails, vocabulary, warm_up=0.1)
    assert outcome.failed == 1


def test_a_header_is_found_in_any_case_and_place() -> None:
    head = b"HTTP/1.1 200 OK\r\nA: b\r\nServer-Timing: queue;dur=2, inference;dur=13.5, total;dur=20\r\nX: y"
    assert generator.header(head, b"server-timing", b"inference;dur=") == b"13.5"
    assert generator.header(head, b"server-timing", b"nothing;dur=") is None
    assert generator.header(head, b"content-length", b"") is None
    assert generator.header(head, b"x", b"") == b"y"
