"""Bodies and answers: bounded reading of JSON, rendering of JSON, and noticing that a caller has left."""

import asyncio
import codecs
from collections.abc import Coroutine
from typing import Any, TypeVar

import pydantic_core
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from api.preference import Preference, parse_preference
from shared.errors import InvalidRequest, PayloadTooLarge, RequestTimedOut

T = TypeVar("T")

BODY_SECONDS = 30.0
"""How long a body may pause."""
_MAX_IDEMPOTENCY_KEY = 255


async def read_json_object(request: Request, max_bytes: int) -> dict[str, Any]:
    """The body as a JSON object, with or without a byte order mark.

    Raises PayloadTooLarge, before the rest is read, RequestTimedOut or InvalidRequest.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", ""):
        raise InvalidRequest(
            "a body with a Content-Encoding is not read here: send it as it is", param="Content-Encoding"
        )
    body = await _read_body(request, max_bytes)
    try:
        value = pydantic_core.from_json(body.removeprefix(codecs.BOM_UTF8), allow_inf_nan=False)
    except ValueError as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidRequest("the body must be a JSON object")
    return value


async def _read_body(request: Request, max_bytes: int) -> bytes:
    too_large = PayloadTooLarge(f"the body is over the limit of {max_bytes} bytes")
    if int(request.headers.get("content-length", "0")) > max_bytes:
        raise too_large
    chunks: list[bytes] = []
    size = 0
    stream = aiter(request.stream())
    try:
        while True:
            async with asyncio.timeout(BODY_SECONDS):
                chunk = await anext(stream)
            size += len(chunk)
            if size > max_bytes:
                raise too_large
            chunks.append(chunk)
    except StopAsyncIteration:
        return b"".join(chunks)
    except TimeoutError:
        raise RequestTimedOut(f"nothing more of the body came for {BODY_SECONDS:g} s") from None


def read_preference(request: Request) -> Preference:
    """What the caller prefers; the header may come in several lines."""
    return parse_preference(", ".join(request.headers.getlist("prefer")))


def read_idempotency_key(request: Request) -> str | None:
    """The key under which the caller may come back for its job. Raises InvalidRequest when it is empty or too long."""
    key = request.headers.get("idempotency-key")
    if key is not None and not 0 < len(key) <= _MAX_IDEMPOTENCY_KEY:
        raise InvalidRequest(
            f"Idempotency-Key must have 1 to {_MAX_IDEMPOTENCY_KEY} characters", param="Idempotency-Key"
        )
    return key


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(pydantic_core.to_json(content), status, headers, media_type="application/json")


async def unless_disconnected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the caller leaves. Raises ClientDisconnect then.

    The body must have been read.
    """
    # One task that listens, and none for the work: every request pays for what is made here.
    task = asyncio.current_task()
    assert task is not None
    has_left = False

    def leave(_: asyncio.Future[None]) -> None:
        nonlocal has_left
        has_left = True
        task.cancel()

    leaving = asyncio.ensure_future(_disconnect(request))
    leaving.add_done_callback(leave)
    try:
        return await work
    except asyncio.CancelledError:
        # Perhaps somebody else cancels too: then it is theirs.
        if has_left and not task.uncancel():
            raise ClientDisconnect from None
        raise
    finally:
        leaving.remove_done_callback(leave)
        leaving.cancel()


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
