"""What queue clients do with the ledger besides jobs: purge what waits, count what ended, read a stream once (asyncio).

Raises StoreUnavailable when Redis is unreachable or refuses writes.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

import redis.asyncio

from shared.contracts import WorkClass
from shared.keys import batch_keys, job_keys, pool_keys
from shared.ledger.batch_record import BULK_JOB_PREFIX
from shared.store.client import store_errors
from shared.store.scripts import script_source

_MAX_CHECKS = 500
"""Jobs checked in one script call: bounded, because Redis runs nothing else meanwhile."""


@dataclass(frozen=True, slots=True)
class JobCounts:
    """How many jobs of a pool have ended with each status so far, and how many were retried."""

    succeeded: int = 0
    failed: int = 0
    canceled: int = 0
    expired: int = 0
    retried: int = 0


class QueueLedger:
    """The queue of each pool, as its owners see it."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        names = ("purge", "mark_streamed", "shorten")
        self._scripts: dict[str, Any] = {name: client.register_script(script_source(name)) for name in names}

    async def purge(self, model: str, owner: str, seconds: float) -> int:
        """Cancel the owner's jobs that no worker has started, oldest first, and return how many.

        Stops after about `seconds`; a further call continues.
        """
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + seconds
        purged = 0
        with store_errors():
            for work_class in WorkClass:
                job_ids: Any = await self._client.zrange(pool_keys.open_jobs(model, work_class), 0, -1)
                for start in range(0, len(job_ids), _MAX_CHECKS):
                    if loop.time() >= ends_at:
                        return purged
                    args = [job_keys.job(""), job_keys.JOB_ENDED_CHANNEL, owner, *job_ids[start : start + _MAX_CHECKS]]
                    purged += int(await self._scripts["purge"](keys=job_keys.script_keys("", model), args=args))
        return purged

    async def counts(self, model: str) -> JobCounts:
        """The pool's counts since Redis has its data."""
        with store_errors():
            found: Any = await self._client.hgetall(pool_keys.job_counts(model))
        counts = {name.decode(): int(count) for name, count in found.items() if count.isdigit()}
        return JobCounts(**{name: counts.get(name, 0) for name in JobCounts.__slots__})

    async def mark_streamed(self, job_id: str) -> bool:
        """Whether the output of a job, of one request or of many, has not been streamed before; from now on it has."""
        is_bulk = job_id.startswith(BULK_JOB_PREFIX)
        with store_errors():
            return bool(
                await self._scripts["mark_streamed"](
                    keys=[batch_keys.batch(job_id) if is_bulk else job_keys.job(job_id)]
                )
            )

    async def shorten(self, job_id: str, model: str, seconds: float) -> None:
        """Shorten the time for which a job can be read: from now if it has ended, otherwise from its end."""
        with store_errors():
            await self._scripts["shorten"](keys=job_keys.script_keys(job_id, model), args=[job_id, int(seconds * 1000)])
