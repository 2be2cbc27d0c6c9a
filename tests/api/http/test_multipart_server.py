"""Uploads to a real server: by an HTTP client, and as bytes for what no client sends."""

import asyncio
import hashlib
from collections.abc import AsyncIterator

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import api.http.multipart
from api.http.error_responses import status_of
from api.http.http11 import limited_to
from api.http.multipart import MAX_OVERHEAD_BYTES, MultipartUpload
from infra.local.redis_server import free_port
from shared.errors import RerankqError
from tests.api.http.multipart_bodies import BOUNDARY, form, part, unclosed_form
from tests.api.http.test_http11 import wait_until_started

MAX_FILE_BYTES = 50_000_000
FORM = form(part("purpose", b"batch"), part("file", b"x" * 1000, "x.jsonl"))
CUTS = [0, 20, FORM.index(b"\r\n--"), FORM.index(b"xxx"), len(FORM) - 500, len(FORM) - 3]
"""Positions in the first headers, between two parts, around the file's bytes and in the closing boundary."""


class Uploads:
    """An application that receives uploads and keeps what each ended with: a digest, or an error."""

    def __init__(self) -> None:
        self.ended: asyncio.Queue[str | Exception] = asyncio.Queue()
        self.app = Starlette(routes=[Route("/files", self._receive, methods=["POST"])])

    async def _receive(self, request: Request) -> JSONResponse:
        try:
            upload = MultipartUpload(request, max_file_bytes=MAX_FILE_BYTES)
            await upload.start()
            digest = hashlib.sha256()
            async for chunk in upload.file():
                digest.update(chunk)
        except RerankqError as error:
            self.ended.put_nowait(error)
            return JSONResponse({"error": error.message, "param": error.param}, status_of(error))
        except ClientDisconnect as error:
            self.ended.put_nowait(error)
            raise
        self.ended.put_nowait(digest.hexdigest())
        return JSONResponse(
            {
                "filename": upload.filename,
                "bytes": upload.file_bytes,
                "sha256": digest.hexdigest(),
                "fields": upload.fields,
            }
        )


@pytest.fixture
def uploads() -> Uploads:
    return Uploads()


@pytest.fixture
async def port(uploads: Uploads) -> AsyncIterator[int]:
    port = free_port()
    config = uvicorn.Config(
        uploads.app, port=port, http=limited_to(8), timeout_keep_alive=1, ws="none", lifespan="off", log_config=None
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    await wait_until_started(server)
    yield port
    server.should_exit = True
    await serving


@pytest.fixture
async def client(port: int) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client:
        yield client


def head(length: int | None) -> bytes:
    """The headers of an upload. Without a length, the body comes in chunks."""
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    content_type = f"multipart/form-data; boundary={BOUNDARY.decode()}"
    return f"POST /files HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\n{framing}\r\n\r\n".encode()


async def test_upload_of_an_http_client_arrives(client: httpx.AsyncClient) -> None:
    content = bytes(range(256)) * 80_000
    response = await client.post(
        "/files",
        files={"file": ("大熊猫.jsonl", content, "application/jsonl")},
        data={"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"},
    )
    assert response.status_code == 200
    assert response.json() == {
        "filename": "大熊猫.jsonl",
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "fields": {"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"},
    }


async def test_connection_serves_several_uploads(client: httpx.AsyncClient) -> None:
    for _ in range(3):
        assert (await client.post("/files", files={"file": ("x", b"x")})).status_code == 200


async def test_file_over_the_limit_is_rejected(client: httpx.AsyncClient) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield unclosed_form(part("file", b"", "x"))
        for _ in range(MAX_FILE_BYTES // 1_000_000 + 1):
            yield bytes(1_000_000)

    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY.decode()}"}
    response = await client.post("/files", content=body(), headers=headers)
    assert response.status_code == 413
    assert response.json() == {"error": f"the file is over the limit of {MAX_FILE_BYTES} bytes", "param": "file"}


async def test_announced_length_over_the_limit_is_rejected_before_the_body_is_sent(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head(MAX_FILE_BYTES + MAX_OVERHEAD_BYTES + 1))
    async with asyncio.timeout(5):
        assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")
    writer.close()


@pytest.mark.parametrize("position", CUTS)
async def test_connection_that_ends_early_raises(uploads: Uploads, port: int, position: int) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head(len(FORM)) + FORM[:position])
    await writer.drain()
    writer.close()
    async with asyncio.timeout(5):
        assert isinstance(await uploads.ended.get(), ClientDisconnect)


@pytest.mark.parametrize("position", CUTS)
@pytest.mark.parametrize("chunked", [False, True])
async def test_body_that_ends_early_is_rejected(port: int, position: int, chunked: bool) -> None:
    body = FORM[:position]
    framed = (b"%x\r\n%s\r\n" % (position, body) if body else b"") + b"0\r\n\r\n" if chunked else body
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head(None if chunked else position) + framed)
    async with asyncio.timeout(5):
        assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
        await reader.readuntil(b"\r\n\r\n")
        assert b"the upload is incomplete" in await reader.readuntil(b"}")
    writer.close()


async def test_stalled_connection_times_out(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.http.multipart, "BODY_SECONDS", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head(len(FORM)) + FORM[:-10])
    async with asyncio.timeout(5):
        assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
    writer.close()
