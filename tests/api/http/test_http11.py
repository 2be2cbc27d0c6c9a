"""What a caller gets that speaks no HTTP, or too slowly: a real server, and bytes."""

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

HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n"
QUICK = 0.3


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with what came as the body."""
    assert scope["type"] == "http"
    await PlainTextResponse(await Request(scope, receive).body() or b"nothing")(scope, receive, send)


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    monkeypatch.setattr(api.http.http11, "HEAD_SECONDS", QUICK)
    port = free_port()
    config = uvicorn.Config(app, port=port, http=Http11, ws="none", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    await until_it_serves(server)
    yield port
    server.should_exit = True
    await serving


async def until_it_serves(server: uvicorn.Server) -> None:
    for _ in range(500):
        if server.started:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it does not serve")


async def talk(port: int, *parts: bytes, pause: float = 0.0) -> tuple[int, bytes]:
    """Status and body of the first answer, when everything was sent; the connection is then closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            await asyncio.sleep(pause)
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            return int(head.split()[1]), await reader.readexactly(int(length.split(b":")[1]))
    finally:
        writer.close()


async def test_a_request_is_answered(port: int) -> None:
    assert await talk(port, HEAD + b"\r\n") == (200, b"nothing")


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x16\x03\x01\x00\xff\r\n\r\n",
        b"FOO / HTTP/1.1\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_said_to_be_none_in_json(port: int, nonsense: bytes) -> None:
    status, body = await talk(port, nonsense)
    error = json.loads(body)["error"]
    assert (status, error["type"], error["code"]) == (400, "invalid_request", 400)


async def test_an_upgrade_is_not_made(port: int) -> None:
    status, _ = await talk(port, HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert status == 200


@pytest.mark.parametrize("parts", [[], [HEAD[:10]], [HEAD, b"A: b\r\n"], [HEAD + b"\r\n", HEAD]])
async def test_a_request_that_does_not_come_is_not_waited_for(port: int, parts: list[bytes]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for part in parts:
        writer.write(part)
        await asyncio.sleep(0.1)
    async with asyncio.timeout(5):
        answers = await reader.read()
    writer.close()
    last = answers.rpartition(b"HTTP/1.1 ")[2]
    assert last.startswith(b"408 ")
    assert json.loads(last.partition(b"\r\n\r\n")[2])["error"]["type"] == "request_timed_out"


async def test_the_time_is_for_the_head_alone(port: int) -> None:
    begun = HEAD + b"Content-Length: 3\r\n\r\n"
    assert await talk(port, begun, b"a", b"b", b"c", pause=QUICK * 0.7) == (200, b"abc")
