"""Reads JSON request bodies: limits their size, decompresses them and times out idle clients."""

import asyncio
import codecs
import re
import time
import zlib
from typing import Any

import pydantic_core
from starlette.requests import Request

from shared.errors import InvalidRequest, PayloadTooLarge, RequestTimedOut

BODY_SECONDS = 30.0
"""The longest pause between two chunks of a body."""
WHOLE_BODY_SECONDS = 300.0
"""The longest time for a whole body."""
_ENCODING_HEADER = "Content-Encoding"
_WINDOW_BITS = {"gzip": (16 + zlib.MAX_WBITS,), "deflate": (zlib.MAX_WBITS, -zlib.MAX_WBITS)}
"""zlib's `wbits` for each encoding. RFC 9110 defines deflate with a zlib header; some clients send it without one."""
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
"""A JSON escape: a surrogate pair, a lone surrogate, or any other."""
_MAX_ESCAPES = 200_000
"""Replacing lone surrogates among this many escapes blocks the event loop for about 0.1 s."""


async def read_json_object(request: Request, max_bytes: int) -> dict[str, Any]:
    """Return the body, decompressed if needed, as a JSON object.

    `max_bytes` limits the body before and after decompression. Raises PayloadTooLarge, without reading the rest of
    the body, RequestTimedOut or InvalidRequest.
    """
    return parse_json_object(await _read_content(request, max_bytes))


async def read_json(request: Request, max_bytes: int) -> Any:
    """Return the body as any JSON value, None when it is empty; otherwise as `read_json_object`."""
    body = await _read_content(request, max_bytes)
    return _parse_json(body, "the body") if body.strip() else None


async def _read_content(request: Request, max_bytes: int) -> bytes:
    body = await _read_body(request, max_bytes)
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        body = _decompress(body, encoding, max_bytes)
    return body.removeprefix(codecs.BOM_UTF8)


def parse_json_object(body: bytes, name: str = "the body") -> dict[str, Any]:
    """Parse a JSON object; errors call it `name`. Raises InvalidRequest."""
    value = _parse_json(body, name)
    if not isinstance(value, dict):
        raise InvalidRequest(f"{name} must be a JSON object")
    return value


async def _read_body(request: Request, max_bytes: int) -> bytes:
    if int(request.headers.get("content-length", "0")) > max_bytes:
        raise _too_large(max_bytes)
    chunks: list[bytes] = []
    size = 0
    stream = aiter(request.stream())
    ends_at = time.monotonic() + WHOLE_BODY_SECONDS
    try:
        while True:
            async with asyncio.timeout(min(BODY_SECONDS, ends_at - time.monotonic())):
                chunk = await anext(stream)
            size += len(chunk)
            if size > max_bytes:
                raise _too_large(max_bytes)
            chunks.append(chunk)
    except StopAsyncIteration:
        return b"".join(chunks)
    except TimeoutError:
        if time.monotonic() >= ends_at:
            raise RequestTimedOut(f"the body did not arrive within {WHOLE_BODY_SECONDS:g} s") from None
        raise RequestTimedOut(f"no more body data arrived within {BODY_SECONDS:g} s") from None


def _decompress(body: bytes, encoding: str, max_bytes: int) -> bytes:
    if encoding not in _WINDOW_BITS:
        supported = ", ".join(_WINDOW_BITS)
        raise InvalidRequest(f"Content-Encoding must be one of {supported}, or none", param=_ENCODING_HEADER)
    for window_bits in _WINDOW_BITS[encoding]:
        decompressor = zlib.decompressobj(window_bits)
        try:
            content = decompressor.decompress(body, max_bytes + 1)
        except zlib.error:
            continue
        if len(content) > max_bytes:
            raise _too_large(max_bytes)
        if decompressor.eof:
            return content
    raise InvalidRequest(f"the body is not valid {encoding} data, or it is incomplete", param=_ENCODING_HEADER)


def _too_large(max_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body is over the limit of {max_bytes} bytes")


def _parse_json(body: bytes, name: str) -> Any:
    try:
        return pydantic_core.from_json(body, allow_inf_nan=False)
    except ValueError as error:
        # JavaScript's slice() cuts characters beyond 16 bits in two. One lone surrogate does not fail the request.
        if body.count(b"\\") <= _MAX_ESCAPES:
            repaired = _ESCAPE.sub(_replace_lone_surrogate, body)
            if repaired != body:
                return _parse_json(repaired, name)
        raise InvalidRequest(f"{name} is not valid JSON: {_describe_error(body, error)}") from error


def _replace_lone_surrogate(escape: re.Match[bytes]) -> bytes:
    return rb"\ufffd" if escape["lone"] else escape[0]


def _describe_error(body: bytes, error: ValueError) -> str:
    """The parser's message, or a clearer one for empty bodies and invalid UTF-8."""
    if not body.strip():
        return "it is empty"
    try:
        body.decode()
    except UnicodeDecodeError as invalid:
        return f"byte {invalid.start} is not UTF-8"
    return str(error)
