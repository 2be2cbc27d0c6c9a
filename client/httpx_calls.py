"""Converts between the protocol's calls and answers and httpx's requests and responses, for both clients."""

from typing import Any

import httpx

from client.errors import ConnectionFailed
from client.protocol import Answer, Call
from client.settings import ClientSettings

CONNECT_SECONDS = 5.0


def client_options(settings: ClientSettings) -> dict[str, Any]:
    """Arguments of an httpx client. The number of connections is not limited: callers limit their concurrency."""
    limits = httpx.Limits(max_connections=None)
    return {"base_url": settings.url, "headers": settings.headers, "limits": limits}


def request(call: Call) -> dict[str, Any]:
    """Arguments of an httpx request."""
    return {
        "method": call.method,
        "url": call.path,
        "headers": dict(call.headers),
        "content": call.body,
        "timeout": httpx.Timeout(call.seconds, connect=CONNECT_SECONDS),
    }


def answer(response: httpx.Response) -> Answer:
    """The protocol's answer for an httpx response."""
    return Answer(response.status_code, dict(response.headers), response.content)


def unreachable(url: httpx.URL, error: httpx.HTTPError) -> ConnectionFailed:
    """The error for a call without a response."""
    return ConnectionFailed(f"no answer from {url}: {str(error) or type(error).__name__}")
