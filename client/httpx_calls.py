"""What both clients have of httpx: how a Call becomes a request, and what comes of it an Answer or an error."""

from typing import Any

import httpx

from client.errors import ConnectionFailed
from client.protocol import Answer, Call
from client.settings import ClientSettings

CONNECT_SECONDS = 5.0


def client_options(settings: ClientSettings) -> dict[str, Any]:
    """How an httpx client is made. Connections are as many as the caller asks things at once."""
    limits = httpx.Limits(max_connections=None)
    return {"base_url": settings.url, "headers": settings.headers, "limits": limits}


def request(call: Call) -> dict[str, Any]:
    """How an httpx client is asked."""
    return {
        "method": call.method,
        "url": call.path,
        "headers": dict(call.headers),
        "content": call.body,
        "timeout": httpx.Timeout(call.seconds, connect=CONNECT_SECONDS),
    }


def answer(response: httpx.Response) -> Answer:
    """What was answered."""
    return Answer(response.status_code, dict(response.headers), response.content)


def unreachable(url: httpx.URL, error: httpx.HTTPError) -> ConnectionFailed:
    """That nobody answered, in one sentence."""
    return ConnectionFailed(f"no answer from {url}: {str(error) or type(error).__name__}")
