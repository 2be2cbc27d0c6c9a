"""Follows jobs for callers that watch their progress."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, suppress

from api.jobs.admission import Admission
from api.jobs.completions import CompletionListener
from api.jobs.service import RerankService
from shared.errors import StoreDamaged, StoreUnavailable
from shared.ledger.job_ledger import JobLedger
from shared.ledger.job_record import JobRecord

FOLLOW_SECONDS = 1.0
"""The pause between two looks at a job that has not ended."""


class JobFollower:
    """Yields the states of jobs until they end."""

    def __init__(
        self, service: RerankService, ledger: JobLedger, completions: CompletionListener, admission: Admission
    ) -> None:
        """`ledger` and `completions` are those of the service."""
        self._service = service
        self._ledger = ledger
        self._completions = completions
        self._admission = admission

    def counted(self) -> AbstractContextManager[None]:
        """Count a follower among the waiting callers during the block. Raises Overloaded when there are too many."""
        return self._admission.waiting()

    async def follow(self, record: JobRecord) -> AsyncGenerator[JobRecord, None]:
        """The job's record now, about once a second, and as soon as it ends; the last one has a final status.

        While Redis is unreachable, yields the last known record. Raises JobNotFound when the job is deleted.
        """
        with self._completions.expect(record.id) as completion:
            if not record.status.final:
                with suppress(StoreUnavailable):
                    # Otherwise the listener's polling notices the end.
                    await self._ledger.listen(record)
            completion.accepted = True
            while True:
                # Before the read: an end during the read must not be missed.
                completion.clear()
                try:
                    record = await self._service.job(record.id, record.owner)
                except StoreDamaged:
                    raise
                except StoreUnavailable:
                    pass
                yield record
                if record.status.final:
                    return
                with suppress(TimeoutError):
                    async with asyncio.timeout(FOLLOW_SECONDS):
                        await completion.wait()
