"""Deletes objects in the payload store that no record refers to: of expired and deleted files, and of killed processes.

Every API process runs a sweeper; a lock in Redis elects the one that works. Objects of other namespaces are another
deployment's, or of a Redis that was lost: they are deleted when their namespace was not marked as used for a month.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from secrets import token_hex
from typing import Any

import redis.asyncio

from api.payloads.base import PayloadStore, StoredObject
from api.payloads.names import BATCHES, FILES, PayloadNames, object_owner
from shared.errors import PayloadMissing, PayloadsUnavailable, StoreUnavailable
from shared.keys import batch_keys, service_keys
from shared.store.client import store_errors
from shared.store.scripts import script_source

logger = logging.getLogger(__name__)

ROUND_SECONDS = 300.0
LEADER_SECONDS = 2 * ROUND_SECONDS
GRACE_SECONDS = 3600.0
"""Younger objects stay: their record may be about to be written."""
ABANDONED_SECONDS = 31 * 86_400.0
_MARK_SECONDS = 86_400.0
_MARK = "alive"
_AT_ONCE = 500


class Sweeper:
    """Deletes orphaned objects, in `run`."""

    def __init__(self, client: redis.asyncio.Redis, payloads: PayloadStore, names: PayloadNames) -> None:
        self._client = client
        self._payloads = payloads
        self._names = names
        self._name = token_hex(8)
        self._elect_leader = client.register_script(script_source("elect_leader"))

    async def run(self) -> None:
        """Run one round after another until cancelled."""
        while True:
            await asyncio.sleep(ROUND_SECONDS)
            try:
                if await self._is_leader():
                    await self.sweep()
            except (StoreUnavailable, PayloadsUnavailable) as error:
                logger.debug("the next round sweeps", extra={"error": error})

    async def _is_leader(self) -> bool:
        with store_errors():
            return bool(
                await self._elect_leader(
                    keys=[service_keys.SWEEPER_LEADER], args=[self._name, int(LEADER_SECONDS * 1000)]
                )
            )

    async def sweep(self, grace_seconds: float = GRACE_SECONDS) -> int:
        """Delete orphans that are older than `grace_seconds`. Returns how many objects."""
        await self._payloads.remove_abandoned(grace_seconds)
        own, now = await self._names.namespace(), time.time()
        marks: dict[str, float] = {}
        deleted = 0
        candidates: list[StoredObject] = []
        async for found in self._payloads.list():
            namespace, _, rest = found.name.partition("/")
            if rest == _MARK:
                marks[namespace] = found.modified_at
            elif namespace == own and found.modified_at < now - grace_seconds:
                candidates.append(found)
            if len(candidates) == _AT_ONCE:
                deleted += await self._delete_orphans(candidates)
                candidates.clear()
        deleted += await self._delete_orphans(candidates)
        if marks.get(own, 0.0) < now - _MARK_SECONDS:
            await self._payloads.write(f"{own}/{_MARK}", _nothing(), expires_at=now + ABANDONED_SECONDS)
        for namespace in [name for name, at in marks.items() if name != own and at < now - ABANDONED_SECONDS]:
            deleted += await self._delete_namespace(namespace)
        if deleted:
            logger.info("deleted objects that nothing refers to", extra={"objects": deleted})
        return deleted

    async def _delete_orphans(self, candidates: list[StoredObject]) -> int:
        needed = await self._needed(
            {owner.id: owner.folder for each in candidates if (owner := object_owner(each.name))}
        )
        orphans = [each for each in candidates if (owner := object_owner(each.name)) and owner.id not in needed]
        for orphan in orphans:
            await self._payloads.delete(orphan.name)
        return len(orphans)

    async def _needed(self, folders: dict[str, str]) -> set[str]:
        """Of these ids of files and batches, those whose objects can still be read."""
        needed: set[str] = set()
        with store_errors():
            for item, folder in folders.items():
                if (folder == FILES and await self._client.exists(batch_keys.file(item))) or (
                    folder == BATCHES and await self._has_readers(item)
                ):
                    needed.add(item)
            # A file that expires while a batch reads it.
            open_batches: Any = await self._client.zrange(batch_keys.OPEN_BATCHES, 0, -1)
            for batch_id in open_batches:
                file: Any = await self._client.hget(batch_keys.batch(batch_id.decode()), "input_file")
                if file is not None:
                    needed.add(file.decode())
        return needed

    async def _has_readers(self, batch_id: str) -> bool:
        """Whether a batch is unfinished, is a job of many requests, or has a result file."""
        fields: Any = await self._client.hmget(
            batch_keys.batch(batch_id), "kind", "ended_ms", "output_file", "error_file"
        )
        kind, ended, *files = fields
        if kind is None:
            return False
        if ended is None or kind == b"job":
            return True
        keys = [batch_keys.file(file.decode()) for file in files if file]
        return bool(keys and await self._client.exists(*keys))

    async def _delete_namespace(self, namespace: str) -> int:
        names = [found.name async for found in self._payloads.list() if found.name.startswith(f"{namespace}/")]
        for name in names:
            try:
                await self._payloads.delete(name)
            except PayloadMissing:
                continue
        return len(names)


async def _nothing() -> AsyncIterator[bytes]:
    yield b""
