"""Bodies and answers: bounded reading of JSON, rendering of JSON, and noticing that a caller has left."""

import asyncio
import codecs
import re
import zlib
from collections.abc import Coroutine
from typing import Any, TypeVar

import pydantic_core
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from api.http.prefer_header import WaitPreference, parse_prefer_header
from shared.errors import InvalidRequest, PayloadTooLarge, RequestTimedOut

T = TypeVar("T")

BODY_SECONDS = 30.0
"""How long a body may pause."""
_MAX_IDEMPOTENCY_KEY = 255
_ENCODING = "Content-Encoding"
_PACKED = {"gzip": (16 + zlib.MAX_WBITS,), "deflate": (zlib.MAX_WBITS, -zlib.MAX_WBITS)}
"""The forms that each encoding has: deflate is zlib's by its standard, and bare with some senders."""
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
"""What a backslash begins: a pair of surrogates, half of one, or anything else."""
_MOST_ESCAPES = 200_000
"""A tenth of a second of everybody's time."""


async def read_json_object(request: Request, max_bytes: int) -> dict[str, Any]:
    """The body as a JSON object, packed or not.

    Raises PayloadTooLarge, before the rest is read, RequestTimedOut or InvalidRequest.
    """
    body = await _read_body(request, max_bytes)
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        body = _unpack(body, encoding, max_bytes)
    value = _read_json(body.removeprefix(codecs.BOM_UTF8))
    if not isinstance(value, dict):
        raise InvalidRequest("the body must be a JSON object")
    return value


def _read_json(body: bytes) -> Any:
    try:
        return pydantic_core.from_json(body, allow_inf_nan=False)
    except ValueError as error:
        # A letter beyond 16 bits that was cut in two, as JavaScript's slice() does: no reason to refuse all the rest.
        few = body.count(b"\\") <= _MOST_ESCAPES
        if few and (mended := _ESCAPE.sub(_mend_escape, body)) != body:
            return _read_json(mended)
        raise InvalidRequest(f"the body is not valid JSON: {_why(body, error)}") from error


def _why(body: bytes, error: ValueError) -> str:
    """What the parser says, unless there is more to say."""
    if not body.strip():
        return "it is empty"
    try:
        body.decode()
    except UnicodeDecodeError as wrong:
        return f"byte {wrong.start} is not UTF-8"
    return str(error)


def _mend_escape(escape: re.Match[bytes]) -> bytes:
    return rb"\ufffd" if escape["half"] else escape[0]


def _unpack(body: bytes, encoding: str, max_bytes: int) -> bytes:
    if encoding not in _PACKED:
        raise InvalidRequest(f"Content-Encoding must be one of {', '.join(_PACKED)}, or none", param=_ENCODING)
    for form in _PACKED[encoding]:
        unpacking = zlib.decompressobj(form)
        try:
            unpacked = unpacking.decompress(body, max_bytes + 1)
        except zlib.error:
            continue
        if len(unpacked) > max_bytes:
            raise _too_large(max_bytes)
        if unpacking.eof:
            return unpacked
    raise InvalidRequest(f"the body is not {encoding}, or not all of it", param=_ENCODING)


def _too_large(max_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body is over the limit of {max_bytes} bytes")


async def _read_body(request: Request, max_bytes: int) -> bytes:
    if int(request.headers.get("content-length", "0")) > max_bytes:
        raise _too_large(max_bytes)
    chunks: list[bytes] = []
    size = 0
    stream = aiter(request.stream())
    try:
        while True:
            async with asyncio.timeout(BODY_SECONDS):
                chunk = await anext(stream)
            size += len(chunk)
            if size > max_bytes:
                raise _too_large(max_bytes)
            chunks.append(chunk)
    except StopAsyncIteration:
        return b"".join(chunks)
    except TimeoutError:
        raise RequestTimedOut(f"nothing more of the body came for {BODY_SECONDS:g} s") from None


def read_prefer_header(request: Request) -> WaitPreference:
    """What the caller prefers; the header may come in several lines."""
    return parse_prefer_header(", ".join(request.headers.getlist("prefer")))


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


async def cancel_on_disconnect(request: Request, work: Coroutine[Any, Any, T]) -> T:
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
