"""A TLS proxy in front of a plain Redis, and a self-signed certificate for it."""

import asyncio
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest


def make_certificate(folder: Path) -> Path:
    """A self-signed certificate for localhost, with its key in the same file. Skips the test without openssl."""
    if (openssl := shutil.which("openssl")) is None:
        pytest.skip("needs openssl to create a certificate")
    path = folder / "localhost.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", "-", "-out", "-"]
    path.write_bytes(subprocess.run(command, capture_output=True, timeout=30, check=True).stdout)
    return path


@contextmanager
def tls_proxy(redis_url: str, certificate: Path) -> Iterator[str]:
    """Yields a TLS URL for the Redis at `redis_url`. Clients must be told to trust the certificate."""
    target = urlsplit(redis_url).port
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    listening: Future[tuple[int, Callable[[], object]]] = Future()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        redis_reader, redis_writer = await asyncio.open_connection("127.0.0.1", target)
        try:
            await asyncio.gather(forward(reader, redis_writer), forward(redis_reader, writer))
            with suppress(OSError):
                await writer.wait_closed()
        finally:
            # A closing transport waits for its peer. The event loop may end first, and leave the socket open.
            writer.transport.abort()
            redis_writer.transport.abort()

    async def listen() -> None:
        server = await asyncio.start_server(serve, "localhost", 0, family=socket.AF_INET, ssl=context)
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()
        listening.set_result((server.sockets[0].getsockname()[1], partial(loop.call_soon_threadsafe, stopped.set)))
        await stopped.wait()
        server.close()
        # The end of `asyncio.run` cancels the open connections.

    thread = threading.Thread(target=asyncio.run, args=(listen(),), name="tls-proxy", daemon=True)
    thread.start()
    port, stop = listening.result(timeout=10)
    try:
        yield f"rediss://localhost:{port}/0"
    finally:
        stop()
        thread.join(timeout=10)
