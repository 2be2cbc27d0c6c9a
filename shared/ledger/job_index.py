"""Lists the jobs of one owner or of all, newest first, with those of many requests (asyncio).

submit.lua and create_batch.lua add jobs to the lists. They and this module remove jobs that no longer exist.
"""

import asyncio
from contextlib import suppress
from typing import Any

import redis.asyncio

from shared.keys import batch_keys, job_keys
from shared.ledger.batch_record import BULK_JOB_PREFIX, BatchKind, BatchRecord
from shared.ledger.job_record import DeadLetter, JobFilter, JobRecord, JobStatus, Position
from shared.store.client import is_damage, store_errors

AnyJob = JobRecord | BatchRecord
"""A job of one request or of many."""
_LISTS_OF_AN_OWNER = 2
_PAGE = 200
"""Jobs that are read in one round trip."""
_MAX_READ = 2000
"""Jobs that one call reads at most; a call that finds fewer than it wants returns where to go on."""


class JobIndex:
    """The jobs of each owner. Raises StoreUnavailable when Redis is unreachable."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client

    async def page(
        self, owner: str | None, wanted: JobFilter, limit: int, after: Position | None = None
    ) -> tuple[list[AnyJob], Position | None]:
        """Up to `limit` jobs, newest first, and the position to go on from; None at the end of the list.

        `owner` None lists the jobs of all owners.
        """
        found: list[AnyJob] = []
        read, position = 0, after
        with store_errors():
            lists = _lists_of(owner) if owner is not None else await self._all_lists()
            while read < _MAX_READ:
                entries = await self._next(lists, wanted, position)
                if not entries:
                    return found, None
                read += len(entries)
                for entry, record in zip(entries, await self._records(lists, entries), strict=True):
                    position = entry
                    if record is None or not wanted.wants(_status(record), record.model):
                        continue
                    if len(found) == limit:
                        # There is one more than wanted.
                        return found, Position(found[-1].created_ms, found[-1].id)
                    found.append(record)
        return found, position

    async def dead_letters(self, limit: int) -> list[DeadLetter]:
        """The newest dead letters of all owners, newest first. Entries that cannot be read are left out."""
        with store_errors():
            letters: Any = await self._client.lrange(job_keys.DEAD_LETTERS, 0, limit - 1)
        found = []
        for letter in letters:
            with suppress(ValueError, TypeError, LookupError):
                found.append(DeadLetter.from_json(letter))
        return found

    async def _all_lists(self) -> list[str]:
        return [
            key.decode(errors="replace")
            for pattern in _lists_of("*")
            async for key in self._client.scan_iter(pattern, count=1000)
        ]

    async def _next(self, lists: list[str], wanted: JobFilter, after: Position | None) -> list[Position]:
        """The next entries of the lists together."""
        pages = await asyncio.gather(*(self._entries(key, wanted, after) for key in lists))
        # Below the last entry of a page that is not the last one, its list may have entries that were not read.
        horizon = max((page[-1] for page, is_last in pages if page and not is_last), default=None)
        entries = sorted((entry for page, _ in pages for entry in page), reverse=True)
        return [entry for entry in entries if horizon is None or entry >= horizon]

    async def _entries(self, key: str, wanted: JobFilter, after: Position | None) -> tuple[list[Position], bool]:
        """The next entries of one list, behind `after`, and whether they are its last."""
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
            later = [entry for entry in entries if after is None or entry < after]
            is_last = len(entries) < _PAGE
            if later or is_last:
                return later, is_last
            start += _PAGE

    async def _records(self, lists: list[str], entries: list[Position]) -> list[AnyJob | None]:
        """The record of each entry's job; None when the job no longer exists or is damaged.

        When the lists of one owner are read, entries of jobs that no longer exist are removed from them.
        """
        async with self._client.pipeline(transaction=False) as pipe:
            for entry in entries:
                is_bulk = entry.job_id.startswith(BULK_JOB_PREFIX)
                pipe.hgetall(batch_keys.batch(entry.job_id) if is_bulk else job_keys.job(entry.job_id))
            answers = await pipe.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, Exception) and not is_damage(answer):
                raise answer
        gone = [entry.job_id for entry, fields in zip(entries, answers, strict=True) if fields == {}]
        if gone and len(lists) == _LISTS_OF_AN_OWNER:
            for key in lists:
                await self._client.zrem(key, *gone)
        return [_record(entry.job_id, fields) for entry, fields in zip(entries, answers, strict=True)]


def _lists_of(owner: str) -> list[str]:
    return [job_keys.owned(owner), batch_keys.owned(BatchKind.JOB, owner)]


def _status(record: AnyJob) -> JobStatus:
    return record.status if isinstance(record, JobRecord) else record.job_status


def _record(job_id: str, fields: Any) -> AnyJob | None:
    if not fields:
        return None
    try:
        is_bulk = job_id.startswith(BULK_JOB_PREFIX)
        return BatchRecord.from_hash(job_id, fields) if is_bulk else JobRecord.from_hash(job_id, fields)
    except (ValueError, TypeError, LookupError, AttributeError):
        return None
