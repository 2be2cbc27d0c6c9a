"""Malformed and slow requests, sent as bytes to a real server."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse

import api.http.http11
from api.http.http11 import MAX_HEADER_BYTES, limited_to
from infra.local.redis_server import free_port

HEADERS = b"GET / HTTP/1.1\r\nHost: x\r\n"
TIMEOUT_SECONDS = 0.3
LARGE = 20_000_000
MAX_CONNECTIONS = 8
finished: list[str] = []
"""The responses that were sent completely."""


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Echoes the body, or sends LARGE bytes."""
    assert scope["type"] == "http"
    if scope["path"] == "/large":
        await PlainTextResponse(b"x" * LARGE)(scope, receive, send)
        finished.append(scope["path"])
        return
    await PlainTextResponse(await Request(scope, receive).body() or b"empty")(scope, receive, send)


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    monkeypatch.setattr(api.http.http11, "HEADERS_SECONDS", TIMEOUT_SECONDS)
    monkeypatch.setattr(api.http.http11, "WRITE_SECONDS", TIMEOUT_SECONDS)
    port = free_port()
    config = uvicorn.Config(
        app,
        port=port,
        http=limited_to(MAX_CONNECTIONS),
        timeout_keep_alive=1,
        ws="none",
        lifespan="off",
        log_config=None,
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    await wait_until_started(server)
    yield port
    server.should_exit = True
    await serving


async def wait_until_started(server: uvicorn.Server) -> None:
    for _ in range(500):
        if server.started:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the server did not start")


async def send(port: int, *chunks: bytes, pause: float = 0.0) -> tuple[int, bytes]:
    """Send the chunks, read the first response, close the connection. Returns status and body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for chunk in chunks:
            writer.write(chunk)
            await asyncio.sleep(pause)
        async with asyncio.timeout(5):
            headers = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in headers.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            return int(headers.split()[1]), await reader.readexactly(int(length.split(b":")[1]))
    finally:
        writer.close()


def read_to_the_end(peer: socket.socket) -> int:
    """The bytes that arrive until the connection ends or is reset."""
    peer.settimeout(5)
    received = 0
    with contextlib.suppress(ConnectionResetError):
        while chunk := peer.recv(1_000_000):
            received += len(chunk)
    return received


async def test_valid_request_gets_a_response(port: int) -> None:
    assert await send(port, HEADERS + b"\r\n") == (200, b"empty")


@pytest.mark.parametrize(
    "malformed",
    [
        b"\x16\x03\x01\x00\xff\r\n\r\n",
        b"FOO / HTTP/1.1\r\n\r\n",
        HEADERS + b"Content-Length: -1\r\n\r\n",
        HEADERS + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
    ],
)
async def test_malformed_request_gets_a_json_error(port: int, malformed: bytes) -> None:
    status, body = await send(port, malformed)
    error = json.loads(body)["error"]
    assert (status, error["type"], error["code"]) == (400, "invalid_request", 400)


async def test_upgrade_is_ignored(port: int) -> None:
    status, _ = await send(port, HEADERS + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert status == 200


@pytest.mark.parametrize("chunks", [[], [HEADERS[:10]], [HEADERS, b"A: b\r\n"], [HEADERS + b"\r\n", HEADERS]])
async def test_incomplete_headers_time_out(port: int, chunks: list[bytes]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for chunk in chunks:
        writer.write(chunk)
        await asyncio.sleep(0.1)
    async with asyncio.timeout(5):
        responses = await reader.read()
    writer.close()
    last = responses.rpartition(b"HTTP/1.1 ")[2]
    assert last.startswith(b"408 ")
    assert json.loads(last.partition(b"\r\n\r\n")[2])["error"]["type"] == "request_timed_out"


async def test_timeout_covers_the_headers_only(port: int) -> None:
    start = HEADERS + b"Content-Length: 3\r\n\r\n"
    assert await send(port, start, b"a", b"b", b"c", pause=TIMEOUT_SECONDS * 0.7) == (200, b"abc")


async def test_long_headers_are_rejected(port: int) -> None:
    status, body = await send(port, HEADERS + b"X: " + b"x" * MAX_HEADER_BYTES)
    assert (status, json.loads(body)["error"]["type"]) == (400, "invalid_request")
    assert "headers are over the limit of 65536 bytes" in json.loads(body)["message"]


async def test_a_large_body_with_the_headers_is_no_long_header(port: int) -> None:
    body = b"x" * (2 * MAX_HEADER_BYTES)
    assert await send(port, HEADERS + b"Content-Length: %d\r\n\r\n" % len(body) + body) == (200, body)


async def test_many_pipelined_requests_are_no_long_header(port: int) -> None:
    count = 3 * MAX_HEADER_BYTES // len(HEADERS)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write((HEADERS + b"\r\n") * count + HEADERS + b"Connection: close\r\n\r\n")
    async with asyncio.timeout(20):
        responses = await reader.read()
    writer.close()
    assert responses.count(b"HTTP/1.1 200 ") == count + 1


async def test_connections_are_limited_and_the_limit_ends_with_them(port: int) -> None:
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MAX_CONNECTIONS)]
    # Each of them is served.
    opened[0][1].write(HEADERS + b"\r\n")
    assert (await opened[0][0].readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(5):
        response = await reader.read()
    writer.close()
    assert response.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1\r\n" in response
    for _, each in opened:
        each.close()
    await asyncio.sleep(0.1)
    assert await send(port, HEADERS + b"\r\n") == (200, b"empty")


async def test_a_peer_that_does_not_read_is_disconnected(port: int) -> None:
    finished.clear()
    with socket.create_connection(("127.0.0.1", port)) as peer:
        peer.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(3 * TIMEOUT_SECONDS)
        # Its request has ended, and the rest of the response was dropped.
        assert finished == ["/large"]
        assert await asyncio.to_thread(read_to_the_end, peer) < LARGE


async def test_a_peer_that_reads_slowly_gets_everything(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    received = 0
    async with asyncio.timeout(20):
        while chunk := await reader.read(1_000_000):
            received += len(chunk)
            await asyncio.sleep(0.05)
    writer.close()
    assert received > LARGE
