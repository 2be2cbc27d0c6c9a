"""Stores uploaded files, and reads, lists and deletes files of both kinds: uploads and the results of batches."""

from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import dataclass
from time import time

from api.payloads.base import PayloadStore
from api.payloads.names import PayloadNames
from shared.errors import PayloadMissing, StoredFileInUse, StoredFileNotFound
from shared.ledger.batch_ledger import BatchLedger
from shared.ledger.batch_record import FileRecord, FileSource
from shared.ledger.file_ledger import FileLedger
from shared.ledger.job_record import Position

MAX_FILE_SECONDS = 30 * 86_400.0
"""The longest lifetime that a caller may ask for."""


@dataclass(frozen=True, slots=True)
class FileLimits:
    """`max_bytes`: the largest file. `seconds`: the lifetime of a file whose caller names none."""

    max_bytes: int
    seconds: float


class FileService:
    """The files of all owners. Every method raises StoreUnavailable when Redis is unreachable."""

    def __init__(
        self,
        ledger: FileLedger,
        batches: BatchLedger,
        payloads: PayloadStore,
        names: PayloadNames,
        limits: FileLimits,
    ) -> None:
        self.limits = limits
        self._ledger = ledger
        self._batches = batches
        self._payloads = payloads
        self._names = names

    async def store(self, file_id: str, chunks: AsyncIterable[bytes]) -> tuple[str, int]:
        """Write an upload, and return its object's name and size. It is no file yet: see `create`.

        Raises what `chunks` raises, PayloadsFull or PayloadsUnavailable; then nothing is stored.
        """
        name = await self._names.upload(file_id)
        # The sweeper deletes it earlier unless `create` follows.
        return name, await self._payloads.write(name, chunks, expires_at=time() + MAX_FILE_SECONDS)

    async def create(
        self, owner: str, file_id: str, filename: str, purpose: str, stored: tuple[str, int], seconds: float | None
    ) -> FileRecord:
        """Make a stored upload a file that lives for `seconds` (None: the default)."""
        name, size = stored
        record = FileRecord(file_id, owner, filename, purpose, size, 0, 0, FileSource.UPLOAD, name)
        return await self._ledger.create(record, self.limits.seconds if seconds is None else seconds)

    async def discard(self, name: str) -> None:
        """Delete a stored upload that does not become a file."""
        await self._payloads.delete(name)

    async def read(self, file_id: str, owner: str) -> FileRecord:
        """A file's record. Raises StoredFileNotFound."""
        record = await self._ledger.read(file_id)
        if record is None or record.owner != owner:
            raise StoredFileNotFound(f"there is no file {file_id[:100]!r}", param="file_id")
        return record

    async def page(
        self, owner: str, limit: int, after: str | None, purpose: str | None, *, newest_first: bool = True
    ) -> tuple[list[FileRecord], bool]:
        """Up to `limit` files behind the file `after`, and whether there are more. Raises StoredFileNotFound."""
        position = None
        if after is not None:
            record = await self.read(after, owner)
            position = Position(record.created_ms, record.id)
        return await self._ledger.page(owner, limit, position, purpose=purpose, newest_first=newest_first)

    async def delete(self, file_id: str, owner: str) -> None:
        """Delete a file. Raises StoredFileNotFound, or StoredFileInUse while a batch reads it."""
        record = await self.read(file_id, owner)
        if record.source is FileSource.UPLOAD:
            await self._require_unused(record)
        await self._ledger.delete(record)
        if record.source is FileSource.UPLOAD:
            await self._payloads.delete(record.source_name)

    async def _require_unused(self, record: FileRecord) -> None:
        for batch_id in await self._batches.open_batches():
            batch = await self._batches.read(batch_id)
            if batch is not None and batch.input_file == record.id:
                raise StoredFileInUse(f"the batch {batch_id} reads this file; cancel it first", param="file_id")

    async def content(self, record: FileRecord) -> AsyncGenerator[bytes]:
        """Yield the file's bytes. The first chunk raises StoredFileNotFound when they no longer exist."""
        try:
            async for chunk in self._chunks(record):
                yield chunk
        except PayloadMissing:
            raise StoredFileNotFound(f"the content of file {record.id!r} no longer exists", param="file_id") from None

    async def _chunks(self, record: FileRecord) -> AsyncGenerator[bytes]:
        if record.source is FileSource.UPLOAD:
            async for chunk in self._payloads.read(record.source_name):
                yield chunk
            return
        for segment in await self._batches.segments(record.source_name):
            start, end = 0, segment.output_bytes
            if record.source is FileSource.ERRORS:
                start, end = end, end + segment.error_bytes
            if start < end:
                async for chunk in self._payloads.read(segment.name, start, end):
                    yield chunk
