"""Malformed and slow requests, sent as bytes to a real server."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse

import api.http.http11
from api.http.http11 import Http11
from infra.local.redis_server import free_port

HEADERS = b"GET / HTTP/1.1\r\nHost: x\r\n"
TIMEOUT_SECONDS = 0.3


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Echoes the body."""
    assert scope["type"] == "http"
    await PlainTextResponse(await Request(scope, receive).body() or b"empty")(scope, receive, send)


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    monkeypatch.setattr(api.http.http11, "HEADERS_SECONDS", TIMEOUT_SECONDS)
    port = free_port()
    config = uvicorn.Config(app, port=port, http=Http11, ws="none", lifespan="off", log_config=None)
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
