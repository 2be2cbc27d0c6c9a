"""Chunks to store, and reading an object as a whole."""

import os
import subprocess
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path

from api.payloads.base import PayloadStore, StoredObject
from infra.local.stack import ROOT

MIB = 1 << 20

_INTERRUPTED_WRITE = """
import asyncio, sys, time
from api.payloads.factory import open_payload_store
from shared.store.client import connect_async

async def chunks():
    for _ in range(9):
        yield bytes(2 << 20)
    print("waiting", flush=True)
    await asyncio.sleep(600)

async def write(location, redis_url):
    store = open_payload_store(location, connect_async(redis_url))
    await store.write("owner/file", chunks(), expires_at=time.time() + 3600)

asyncio.run(write(*sys.argv[1:]))
"""


def in_an_hour() -> float:
    return time.time() + 3600


async def chunks_of(data: bytes, size: int = 65_536) -> AsyncIterator[bytes]:
    """The data in chunks of this size, as an HTTP body arrives."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def write(store: PayloadStore, name: str, data: bytes, chunk_bytes: int = 65_536) -> int:
    return await store.write(name, chunks_of(data, chunk_bytes), expires_at=in_an_hour())


async def read(store: PayloadStore, name: str, start: int = 0, end: int | None = None) -> bytes:
    async with aclosing(store.read(name, start, end)) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def objects(store: PayloadStore) -> dict[str, StoredObject]:
    async with aclosing(store.list()) as found:
        return {entry.name: entry async for entry in found}


def files_in(folder: Path) -> set[str]:
    """The paths of all files below a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def random_bytes(length: int) -> bytes:
    """Bytes in which a chunk at a wrong place is noticed."""
    return os.urandom(length)


def write_and_be_killed(location: str, redis_url: str) -> None:
    """Let another process write 18 MiB of an object, and kill it."""
    command = [sys.executable, "-c", _INTERRUPTED_WRITE, location, redis_url]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"waiting\n"
        finally:
            process.kill()


@contextmanager
def memory_limit(limit: int) -> Iterator[None]:
    """Fails when the block's Python objects take more bytes than this at once."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < limit, f"{peak / MIB:.1f} MiB"


async def repeated(chunk: bytes, count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield chunk
