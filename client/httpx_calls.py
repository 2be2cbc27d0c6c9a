"""Executes the protocol's calls with httpx, for both clients."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx

from client.calls import Answer, Body, Call
from client.errors import ConnectionFailed
from client.settings import ClientSettings

CONNECT_SECONDS = 5.0


def client_options(settings: ClientSettings) -> dict[str, Any]:
    """Arguments of an httpx client. The number of connections is not limited: callers limit their concurrency."""
    limits = httpx.Limits(max_connections=None)
    return {"base_url": settings.url, "headers": settings.headers, "limits": limits}


def execute(http: httpx.Client, call: Call) -> Answer:
    """Make the call. Raises ConnectionFailed, and what reading a body or writing to the target raises."""
    content = call.body.chunks() if isinstance(call.body, Body) else call.body
    try:
        with http.stream(**_request(call), content=content) as response:
            if call.on_chunk is not None and response.is_success:
                any(call.on_chunk(chunk) for chunk in response.iter_bytes())
                return _answer(response, b"")
            if call.target is None or not response.is_success:
                return _answer(response, response.read())
            call.target.seek(0)
            call.target.truncate()
            for chunk in response.iter_bytes():
                call.target.write(chunk)
            return _answer(response, b"")
    except httpx.HTTPError as error:
        raise _unreachable(http.base_url, error) from error


async def execute_async(http: httpx.AsyncClient, call: Call) -> Answer:
    """Make the call without blocking the event loop while a body is read. Raises as `execute` does."""
    content = _in_threads(call.body.chunks()) if isinstance(call.body, Body) else call.body
    try:
        async with http.stream(**_request(call), content=content) as response:
            if call.on_chunk is not None and response.is_success:
                async for chunk in response.aiter_bytes():
                    if call.on_chunk(chunk):
                        break
                return _answer(response, b"")
            if call.target is None or not response.is_success:
                return _answer(response, await response.aread())
            call.target.seek(0)
            call.target.truncate()
            async for chunk in response.aiter_bytes():
                call.target.write(chunk)
            return _answer(response, b"")
    except httpx.HTTPError as error:
        raise _unreachable(http.base_url, error) from error


async def _in_threads(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(next, chunks, b""):
        yield chunk


def _request(call: Call) -> dict[str, Any]:
    headers = dict(call.headers)
    if isinstance(call.body, Body):
        headers["Content-Length"] = str(call.body.size)
    return {
        "method": call.method,
        "url": call.path,
        "headers": headers,
        "timeout": httpx.Timeout(call.seconds, connect=CONNECT_SECONDS),
    }


def _answer(response: httpx.Response, body: bytes) -> Answer:
    return Answer(response.status_code, dict(response.headers), body)


def _unreachable(url: httpx.URL, error: httpx.HTTPError) -> ConnectionFailed:
    return ConnectionFailed(f"no answer from {url}: {str(error) or type(error).__name__}")
