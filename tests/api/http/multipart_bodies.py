"""Builds multipart bodies, and requests that deliver them in chunks."""

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request

from api.http.multipart import MultipartUpload

BOUNDARY = b"----form"
CLOSING = b"\r\n--" + BOUNDARY + b"--\r\n"
CONTENT = b"\r\n--\r\n----for\r\n------for\r\n--no end\r\n"
"""A file that resembles the boundary wherever it can."""


def part(name: str, content: bytes, filename: str | None = None, *more_headers: bytes) -> bytes:
    """One part of a form, without the boundary before it."""
    disposition = f'Content-Disposition: form-data; name="{name}"'
    if filename is not None:
        disposition += f'; filename="{filename}"'
    return b"\r\n".join([disposition.encode(), *more_headers, b"", content])


def form(*parts: bytes) -> bytes:
    return b"".join(b"--" + BOUNDARY + b"\r\n" + each + b"\r\n" for each in parts) + CLOSING.removeprefix(b"\r\n")


def unclosed_form(*parts: bytes) -> bytes:
    """A body that ends with the content of its last part: more of it can follow."""
    return form(*parts).removesuffix(CLOSING)


def split(body: bytes, size: int) -> Iterator[bytes]:
    return (body[start : start + size] for start in range(0, len(body), size))


def make_request(chunks: Iterable[bytes], *, stalls: bool = False, pause: float = 0.0, **headers: str) -> Request:
    """A request whose body arrives in chunks, with a pause before each. One that `stalls` never ends."""
    headers = {"content_type": f'multipart/form-data; boundary="{BOUNDARY.decode()}"'} | headers
    remaining = iter(chunks)

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(pause)
        chunk = next(remaining, None)
        if chunk is None and stalls:
            await asyncio.sleep(30)
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    raw = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "headers": raw}, receive)


@dataclass
class Received:
    """An upload as a route would receive it. `early_fields`: those that were known before the file was read."""

    filename: str = ""
    content: bytes = b""
    fields: dict[str, str] = field(default_factory=dict)
    early_fields: dict[str, str] = field(default_factory=dict)


async def receive_upload(request: Request, max_file_bytes: int = 10**6) -> Received:
    upload = MultipartUpload(request, max_file_bytes=max_file_bytes)
    await upload.start()
    early_fields = dict(upload.fields)
    content = b"".join([chunk async for chunk in upload.file()])
    assert upload.file_bytes == len(content)
    return Received(upload.filename, content, upload.fields, early_fields)


async def receive_body(body: bytes, max_file_bytes: int = 10**6, size: int = 65_536) -> Received:
    """Receive a body in chunks of this size."""
    return await receive_upload(make_request(split(body, size)), max_file_bytes)
