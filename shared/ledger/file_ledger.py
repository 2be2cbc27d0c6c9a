"""Records of files in Redis (asyncio): create, read, list and delete them. Their bytes are in the payload store.

Raises StoreUnavailable when Redis is unreachable or refuses writes, and StoreDamaged when its data cannot be used.
"""

from dataclasses import replace
from typing import Any

import redis.asyncio

from shared.keys import batch_keys
from shared.ledger.batch_record import FileRecord
from shared.ledger.job_record import Position
from shared.ledger.owned_pages import read_owned_page
from shared.store.client import damaged, store_errors
from shared.store.scripts import script_source


class FileLedger:
    """The files of all owners."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._create: Any = client.register_script(script_source("create_file"))

    async def create(self, record: FileRecord, seconds: float) -> FileRecord:
        """Store the record of an uploaded file for `seconds`. Returns it with its times."""
        args = [record.id, record.owner, int(seconds * 1000)]
        args += [record.filename, record.purpose, record.size, record.source_name]
        keys = [batch_keys.file(record.id), batch_keys.owned_files(record.owner)]
        with store_errors():
            created_ms, expires_ms = await self._create(keys=keys, args=args)
        return replace(record, created_ms=int(created_ms), expires_ms=int(expires_ms))

    async def read(self, file_id: str) -> FileRecord | None:
        """The file's record; None when it does not exist."""
        with store_errors():
            fields: Any = await self._client.hgetall(batch_keys.file(file_id))
        if not fields:
            return None
        try:
            return FileRecord.from_hash(file_id, fields)
        except (ValueError, LookupError) as error:
            raise damaged(f"{type(error).__name__} in the record of a file") from None

    async def page(
        self,
        owner: str,
        limit: int,
        after: Position | None = None,
        *,
        purpose: str | None = None,
        newest_first: bool = True,
    ) -> tuple[list[FileRecord], bool]:
        """Up to `limit` files of an owner behind `after`, and whether there are more."""
        return await read_owned_page(
            self._client,
            batch_keys.owned_files(owner),
            batch_keys.file,
            FileRecord.from_hash,
            limit,
            after,
            newest_first=newest_first,
            wanted=lambda record: purpose in (None, record.purpose),
        )

    async def delete(self, record: FileRecord) -> bool:
        """Delete a file's record. Returns False when it does not exist."""
        with store_errors():
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.delete(batch_keys.file(record.id))
                pipe.zrem(batch_keys.owned_files(record.owner), record.id)
                deleted, _ = await pipe.execute()
        return bool(deleted)
