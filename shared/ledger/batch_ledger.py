"""Batches in Redis (asyncio): create, read, list, cancel and delete them, and what their runners write.

Each change is one Lua script. Raises StoreUnavailable when Redis is unreachable or refuses writes, and StoreDamaged
when its data cannot be used. JobLedger owns the jobs of the lines, the payload store the bytes of inputs and outputs.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import redis.asyncio

from shared.errors import IdempotencyConflict
from shared.keys import batch_keys, job_keys, pool_keys
from shared.ledger.batch_record import BatchError, BatchKind, BatchRecord, BatchStatus, FileSource, Segment
from shared.ledger.job_record import Position
from shared.ledger.owned_pages import read_owned_page
from shared.owner_limits import OwnerLimits
from shared.store.client import damaged, store_errors
from shared.store.scripts import script_source

LEASE_SECONDS = 5.0
"""A runner that does not renew for this long loses its batch. Another one goes on from the cursor."""
UNFINISHED_SECONDS = 40 * 86400.0
"""The lifetime of an unfinished batch's keys: longer than any completion window."""


class BatchLost(Exception):
    """The runner no longer holds the batch: its lease expired, or the batch was deleted."""


@dataclass(frozen=True, slots=True)
class Advance:
    """Moves a batch's cursor from byte `start` to byte `end` of the input; `segment` has the results between them."""

    start: int
    end: int
    segment: Segment | None


@dataclass(frozen=True, slots=True)
class ResultFile:
    """A file to create when a batch ends: `source` selects the part of the batch's segments."""

    id: str
    filename: str
    bytes: int
    source: FileSource


class BatchLedger:
    """The batches of all owners. `models` are the pools that may have unpublished work."""

    def __init__(self, client: redis.asyncio.Redis, models: Sequence[str]) -> None:
        self._client = client
        self._models = models
        names = ("create_batch", "write_batch", "end_batch", "cancel_batch", "delete_batch", "elect_leader")
        self._scripts: dict[str, Any] = {name: client.register_script(script_source(name)) for name in names}

    async def create(
        self,
        record: BatchRecord,
        *,
        seconds: float,
        limits: OwnerLimits,
        idempotency: tuple[str, str] | None = None,
        webhooks: str = "",
    ) -> str:
        """Create a batch that expires after `seconds`; returns its id, or that of the batch with the same key.

        `idempotency` is the Idempotency-Key and the request's fingerprint, `webhooks` what its end delivers, as JSON.
        Raises IdempotencyConflict, and RateLimited when the owner's budget does not have `record.reserved_tokens` left.
        """
        keys = [
            batch_keys.batch(record.id),
            batch_keys.owned(record.kind, record.owner),
            batch_keys.OPEN_BATCHES,
        ]
        if idempotency is not None:
            # Jobs and batches may have equal keys: a line break cannot be part of a header.
            keys.append(job_keys.idempotency(record.owner, f"batch\n{idempotency[0]}"))
        args: list[str | int] = [
            record.id,
            record.owner,
            int(seconds * 1000),
            # The owner's list must live as long as the results.
            int((UNFINISHED_SECONDS + record.retain_seconds) * 1000),
            idempotency[1] if idempotency else "",
            record.reserved_tokens,
            "" if limits.batch_tokens is None else limits.batch_tokens,
            *(part for field in record.to_fields().items() for part in field),
            *(("webhooks", webhooks) if webhooks else ()),
        ]
        with store_errors():
            verdict, answer = await self._scripts["create_batch"](keys=keys, args=args)
        if verdict == b"budget":
            raise limits.error("batches", 0)
        if verdict == b"conflict":
            raise IdempotencyConflict("this Idempotency-Key was used for another request", param="Idempotency-Key")
        return str(answer.decode())

    async def read(self, batch_id: str) -> BatchRecord | None:
        """The batch's record; None when it does not exist."""
        with store_errors():
            fields: Any = await self._client.hgetall(batch_keys.batch(batch_id))
        return _record(batch_id, fields)

    async def segments(self, batch_id: str, start: int = 0) -> list[Segment]:
        """The batch's segments from number `start` on, in order."""
        with store_errors():
            found: Any = await self._client.lrange(batch_keys.segments(batch_id), start, -1)
        try:
            return [Segment.from_json(text) for text in found]
        except (ValueError, TypeError) as error:
            raise damaged(f"{type(error).__name__} in the segments of a batch") from None

    async def page(
        self, kind: BatchKind, owner: str, limit: int, after: Position | None = None
    ) -> tuple[list[BatchRecord], bool]:
        """Up to `limit` batches of an owner, newest first, behind `after`; and whether there are more."""
        return await read_owned_page(
            self._client, batch_keys.owned(kind, owner), batch_keys.batch, BatchRecord.from_hash, limit, after
        )

    async def open_batches(self) -> list[str]:
        """The ids of all unfinished batches, oldest first."""
        with store_errors():
            found: Any = await self._client.zrange(batch_keys.OPEN_BATCHES, 0, -1)
        return [batch_id.decode() for batch_id in found]

    async def idle_batches(self) -> int:
        """How many unfinished batches have no runner."""
        batches = await self.open_batches()
        if not batches:
            return 0
        with store_errors():
            held = await self._client.exists(*(batch_keys.runner(batch_id) for batch_id in batches))
        return len(batches) - int(held)

    async def cancel(self, batch_id: str) -> BatchStatus | None:
        """Ask for a batch's cancellation. Returns its status afterwards; None when it does not exist."""
        with store_errors():
            status = await self._scripts["cancel_batch"](keys=[batch_keys.batch(batch_id)])
        return BatchStatus(status.decode()) if status else None

    async def delete(self, record: BatchRecord) -> bool:
        """Delete a batch. Returns False when it does not exist."""
        keys = [
            *self._own_keys(record.id),
            batch_keys.owned(record.kind, record.owner),
            batch_keys.OPEN_BATCHES,
            *self._unpublished_keys(),
        ]
        with store_errors():
            return bool(await self._scripts["delete_batch"](keys=keys, args=[record.id]))

    async def acquire(self, batch_id: str, token: str) -> bool:
        """Become the batch's runner. Returns False when another process is, or the batch no longer exists."""
        with store_errors():
            acquired = await self._scripts["elect_leader"](
                keys=[batch_keys.runner(batch_id)], args=[token, int(LEASE_SECONDS * 1000)]
            )
            if acquired and not await self._client.exists(batch_keys.batch(batch_id)):
                # It expired, or it was deleted at this moment.
                await self.forget(batch_id)
                return False
        return bool(acquired)

    async def forget(self, batch_id: str) -> None:
        """Remove a batch whose record is lost or damaged from everything that lists unfinished batches."""
        with store_errors():
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.delete(batch_keys.runner(batch_id))
                pipe.zrem(batch_keys.OPEN_BATCHES, batch_id)
                for key in self._unpublished_keys():
                    pipe.hdel(key, batch_id)
                await pipe.execute()

    async def seconds_left(self, record: BatchRecord) -> float:
        """The time until the batch expires, by Redis's clock."""
        with store_errors():
            seconds, microseconds = await self._client.time()
        return record.expires_ms / 1000 - (int(seconds) + int(microseconds) / 1e6)

    async def release(self, batch_id: str, token: str) -> None:
        """Let another process run the batch at once."""
        with store_errors():
            await self._scripts["elect_leader"](keys=[batch_keys.runner(batch_id)], args=[token, 1])

    async def write(
        self,
        batch_id: str,
        token: str,
        *,
        fields: Mapping[str, str | int | float] | None = None,
        status: BatchStatus | None = None,
        advance: Advance | None = None,
        unpublished: Mapping[str, tuple[int, int]] | None = None,
    ) -> BatchStatus:
        """Write the runner's progress and renew its lease. Returns the batch's status.

        `unpublished` maps models to the pairs and tokens of lines that are no jobs yet; None: unchanged. A `status` is
        not written while the batch is being cancelled. Raises BatchLost.
        """
        pools = [] if unpublished is None else list(unpublished)
        segment = advance.segment if advance else None
        args: list[str | int | float] = [
            batch_id,
            token,
            int(LEASE_SECONDS * 1000),
            int(UNFINISHED_SECONDS * 1000),
            "" if advance is None else advance.start,
            "" if advance is None else advance.end,
            "" if segment is None else segment.to_json(),
            status or "",
            *(_load(unpublished[model]) for model in pools if unpublished is not None),
            *(part for field in (fields or {}).items() for part in field),
        ]
        keys = [*self._own_keys(batch_id), *(pool_keys.unpublished(model) for model in pools)]
        with store_errors():
            answer = await self._scripts["write_batch"](keys=keys, args=args)
        if answer in (b"lost", b"moved"):
            raise BatchLost(batch_id)
        return BatchStatus(answer.decode())

    async def end(
        self,
        record: BatchRecord,
        token: str,
        status: BatchStatus,
        *,
        output: ResultFile | None = None,
        errors_file: ResultFile | None = None,
        errors: Sequence[BatchError] = (),
    ) -> None:
        """Write the final status and create the result files. Raises BatchLost."""
        files = [output, errors_file]
        keys = [
            *self._own_keys(record.id),
            batch_keys.OPEN_BATCHES,
            batch_keys.owned_files(record.owner),
            *(batch_keys.file(file.id if file else "") for file in files),
            *self._unpublished_keys(),
        ]
        args: list[str | int] = [
            record.id,
            token,
            status,
            record.retain_seconds * 1000,
            json.dumps([asdict(error) for error in errors]) if errors else "",
            record.owner,
        ]
        for file in files:
            args += ["", "", 0, ""] if file is None else [file.id, file.filename, file.bytes, file.source]
        with store_errors():
            answer = await self._scripts["end_batch"](keys=keys, args=args)
        if answer == b"lost":
            raise BatchLost(record.id)

    @staticmethod
    def _own_keys(batch_id: str) -> list[str]:
        return [batch_keys.batch(batch_id), batch_keys.segments(batch_id), batch_keys.runner(batch_id)]

    def _unpublished_keys(self) -> list[str]:
        return [pool_keys.unpublished(model) for model in self._models]


def _load(load: tuple[int, int]) -> str:
    pairs, tokens = load
    return f"{pairs} {tokens}" if pairs > 0 or tokens > 0 else ""


def _record(batch_id: str, fields: Any) -> BatchRecord | None:
    if not fields:
        return None
    try:
        return BatchRecord.from_hash(batch_id, fields)
    except (ValueError, TypeError, LookupError) as error:
        raise damaged(f"{type(error).__name__} in the record of a batch") from None
