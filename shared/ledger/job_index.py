"""Lists an owner's jobs, newest first (asyncio).

submit.lua writes the index; jobs that are gone are removed from it here and there.
"""

from typing import Any

import redis.asyncio

from shared.keys import job_keys
from shared.ledger.job_record import JobFilter, JobRecord, Position
from shared.store.client import is_damage, store_errors

_PAGE = 200
"""Jobs that are read in one round trip."""
_MAX_READ = 2000
"""Jobs that one call reads at most; a call that finds fewer than it wants returns where to go on."""


class JobIndex:
    """The jobs of each owner. Raises StoreUnavailable when Redis is unreachable."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client

    async def page(
        self, owner: str, wanted: JobFilter, limit: int, after: Position | None = None
    ) -> tuple[list[JobRecord], Position | None]:
        """Up to `limit` jobs, newest first, and the position to go on from; None at the end of the list."""
        found: list[JobRecord] = []
        key, read, position = job_keys.owned(owner), 0, after
        with store_errors():
            while read < _MAX_READ:
                entries = await self._entries(key, wanted, position)
                if not entries:
                    return found, None
                read += len(entries)
                for entry, record in zip(entries, await self._records(key, entries), strict=True):
                    position = entry
                    if record is None or not wanted.wants(record):
                        continue
                    if len(found) == limit:
                        # There is one more than wanted.
                        return found, Position(found[-1].created_ms, found[-1].id)
                    found.append(record)
        return found, position

    async def _entries(self, key: str, wanted: JobFilter, after: Position | None) -> list[Position]:
        """The next entries of the index, without those before `after` that have its time."""
        highest = "+inf" if wanted.created_to is None else wanted.created_to
        if after is not None:
            highest = after.created_ms if wanted.created_to is None else min(after.created_ms, wanted.created_to)
        lowest = "-inf" if wanted.created_from is None else wanted.created_from
        start = 0
        while True:
            raw: Any = await self._client.zrange(
                key, highest, lowest, desc=True, byscore=True, offset=start, num=_PAGE, withscores=True
            )
            entries = [Position(int(score), member.decode(errors="replace")) for member, score in raw]
            later = [entry for entry in entries if after is None or _is_behind(entry, after)]
            if later or len(entries) < _PAGE:
                return later
            start += _PAGE

    async def _records(self, key: str, entries: list[Position]) -> list[JobRecord | None]:
        """The jobs' records; None for a job that is gone or damaged. Removes those that are gone from the index."""
        async with self._client.pipeline(transaction=False) as pipe:
            for entry in entries:
                pipe.hgetall(job_keys.job(entry.job_id))
            answers = await pipe.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, Exception) and not is_damage(answer):
                raise answer
        if gone := [entry.job_id for entry, fields in zip(entries, answers, strict=True) if fields == {}]:
            await self._client.zrem(key, *gone)
        return [_record(entry.job_id, fields) for entry, fields in zip(entries, answers, strict=True)]


def _is_behind(entry: Position, after: Position) -> bool:
    return (entry.created_ms, entry.job_id) < (after.created_ms, after.job_id)


def _record(job_id: str, fields: Any) -> JobRecord | None:
    try:
        return JobRecord.from_hash(job_id, fields) if fields else None
    except (ValueError, TypeError, LookupError, AttributeError):
        return None
