"""A payload store in an S3 bucket, or in the bucket of a compatible server.

Uses obstore, which runs Apache's object_store crate in its own threads: it signs, sends and receives in parallel with
the event loop, aborts the upload of a source that fails, and is one wheel of 5 MB without dependencies.
Owns multipart uploads and ranged reads with bounded memory. Refuses to delete expired objects: the caller does.

Settings come from the AWS_* variables that object_store reads: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_SESSION_TOKEN, AWS_REGION or AWS_DEFAULT_REGION, AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, and those of container
and web identities. Without credentials it asks the machine's metadata service.
"""

import asyncio
import os
import re
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from api.payloads.base import (
    BLOCK_BYTES,
    StoredObject,
    blocks,
    check_name,
    check_range,
    full,
    is_name,
    missing,
    unavailable,
)
from api.payloads.s3_uploads import UnfinishedUploads
from shared.errors import ConfigurationError

try:
    import obstore
    from obstore.exceptions import BaseError
    from obstore.store import S3Store as Bucket
except ImportError as error:
    raise ConfigurationError("payloads in S3 need the package obstore: pip install '.[s3]'") from error

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

_PART_BYTES = 8 * BLOCK_BYTES
"""S3 accepts 10,000 parts per object, so that the largest object has 80 GB."""
_PARTS_AT_ONCE = 3
_READ_BYTES = 8 * BLOCK_BYTES
_BUCKET = re.compile(r"[A-Za-z0-9._-]{3,63}")
_FULL = re.compile(r"507 Insufficient|QuotaExceeded|StorageFull|InsufficientStorage|InsufficientCapacity")
# A client waits for each request: the defaults would retry for three minutes.
_RETRIES: "RetryConfig" = {"max_retries": 3, "retry_timeout": timedelta(seconds=30)}
_CLIENT: "ClientConfig" = {"connect_timeout": timedelta(seconds=2), "timeout": timedelta(seconds=60)}


class S3Store:
    """A PayloadStore below a prefix of a bucket; `url` is s3://bucket/prefix.

    A write holds up to five parts of 8 MiB in memory, a read up to two. Raises ConfigurationError for an invalid URL or
    AWS_* variable; connects on first use.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        prefix = parts.path.strip("/")
        if parts.scheme != "s3" or not _BUCKET.fullmatch(parts.netloc) or parts.query or parts.fragment:
            raise ConfigurationError(f"RERANKQ_PAYLOADS: {url!r} is not s3://bucket/prefix", param="payloads")
        if prefix and not is_name(prefix):
            raise ConfigurationError(f"RERANKQ_PAYLOADS: {prefix!r} is not a valid prefix", param="payloads")
        # An empty variable counts as unset, as in the settings; object_store would use it.
        for name in [name for name, value in os.environ.items() if name.startswith("AWS_") and not value]:
            del os.environ[name]
        self._uploads = UnfinishedUploads.from_environment(parts.netloc, prefix)
        client = _CLIENT | {"allow_http": True} if self._uploads.endpoint.startswith("http://") else _CLIENT
        try:
            self._bucket = Bucket(
                parts.netloc, prefix=prefix or None, client_options=client, retry_config=_RETRIES, config={}
            )
        except (BaseError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise ConfigurationError(f"the AWS_* variables are invalid: {reason}", param="payloads") from error

    async def write(self, name: str, chunks: AsyncIterable[bytes], *, expires_at: float) -> int:
        """See PayloadStore. An object of up to 8 MiB is one request, a larger one a multipart upload."""
        check_name(name)
        async with aclosing(blocks(chunks, _PART_BYTES)) as parts:
            first = await anext(parts, b"")
            if len(first) == _PART_BYTES:
                return await self._write_parts(name, first, parts)
            with _s3_errors():
                await obstore.put_async(self._bucket, name, first, use_multipart=False)
            return len(first)

    async def _write_parts(self, name: str, part: bytes, rest: AsyncIterator[bytes]) -> int:
        queue = _PartQueue()
        upload = asyncio.ensure_future(
            obstore.put_async(
                self._bucket, name, queue, use_multipart=True, chunk_size=_PART_BYTES, max_concurrency=_PARTS_AT_ONCE
            )
        )
        size = 0
        try:
            while part:
                await queue.put(part, upload)
                size += len(part)
                part = await anext(rest, b"")
            await queue.put(None, upload)
            with _s3_errors():
                # Without the shield, a cancellation would drop the upload's future, and leave the upload unfinished.
                await asyncio.shield(upload)
        except BaseException:
            queue.abort()
            await asyncio.wait([upload])
            with suppress(Exception):
                upload.result()  # Otherwise asyncio logs an exception that was never retrieved.
            raise
        return size

    async def read(self, name: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes]:
        """See PayloadStore. Receives the next 8 MiB while the caller processes the last; fails when it is replaced.

        Each 8 MiB are a request of their own, because a request that waits for a slow caller would time out.
        """
        check_range(start, end)
        check_name(name)
        with _s3_errors(name):
            status = await obstore.head_async(self._bucket, name)
        stop = status["size"] if end is None else min(end, status["size"])
        receiving = asyncio.ensure_future(self._read_range(name, start, stop, status["e_tag"]))
        try:
            while data := await receiving:
                start += len(data)
                receiving = asyncio.ensure_future(self._read_range(name, start, stop, status["e_tag"]))
                for offset in range(0, len(data), BLOCK_BYTES):
                    yield data[offset : offset + BLOCK_BYTES]
        finally:
            receiving.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await receiving

    async def _read_range(self, name: str, start: int, stop: int, e_tag: str | None) -> bytes:
        """Up to 8 MiB of an object, which must not have changed; nothing at its end."""
        stop = min(stop, start + _READ_BYTES)
        if start >= stop:
            return b""
        with _s3_errors(name):
            answer = await obstore.get_async(self._bucket, name, options={"range": (start, stop), "if_match": e_tag})
            return bytes(await answer.bytes_async())

    async def delete(self, name: str) -> None:
        """See PayloadStore."""
        check_name(name)
        with _s3_errors(), suppress(FileNotFoundError):
            await obstore.delete_async(self._bucket, name)

    async def list(self) -> AsyncGenerator[StoredObject]:
        """See PayloadStore. Receives a thousand objects per request."""
        pages = obstore.list(self._bucket, chunk_size=1000)
        while True:
            with _s3_errors():
                page = await anext(pages, None)
            if page is None:
                return
            for entry in page:
                if is_name(entry["path"]):
                    yield StoredObject(entry["path"], entry["size"], entry["last_modified"].timestamp())

    async def remove_abandoned(self, older_than_seconds: float) -> int:
        """See PayloadStore. Needs an access key in the environment; otherwise use a lifecycle rule of the bucket."""
        return await self._uploads.abort_old(older_than_seconds)

    async def close(self) -> None:
        """See PayloadStore. obstore closes its connections when they are idle."""


class _PartQueue:
    """Parts on their way from the writer to obstore, which iterates over them; at most one waits.

    The writer's own task reads the source, so that its errors and timeouts do not pass through obstore.
    """

    def __init__(self) -> None:
        self._parts: asyncio.Queue[bytes | None] = asyncio.Queue(1)
        self._aborted = asyncio.Event()

    def __aiter__(self) -> "_PartQueue":
        return self

    async def __anext__(self) -> bytes:
        part = await self._parts.get()
        if self._aborted.is_set():
            raise ConnectionAbortedError("the writer has stopped")
        if part is None:
            raise StopAsyncIteration
        return part

    async def put(self, part: bytes | None, upload: asyncio.Future[Any]) -> None:
        """Add a part, or None after the last. Raises the error of the upload if it ends first."""
        putting = asyncio.ensure_future(self._parts.put(part))
        try:
            await asyncio.wait([putting, upload], return_when=asyncio.FIRST_COMPLETED)
        finally:
            putting.cancel()
        if upload.done():
            with _s3_errors():
                upload.result()

    def abort(self) -> None:
        """Make obstore abort the upload."""
        self._aborted.set()
        with suppress(asyncio.QueueFull):
            self._parts.put_nowait(None)


@contextmanager
def _s3_errors(name: str | None = None) -> Iterator[None]:
    """Convert errors of obstore inside the block into PayloadsFull, PayloadsUnavailable or PayloadMissing(`name`)."""
    try:
        yield
    except (BaseError, OSError) as error:
        if name is not None and isinstance(error, FileNotFoundError):
            raise missing(name) from error
        raise (full if _FULL.search(str(error)) else unavailable)(error) from error
