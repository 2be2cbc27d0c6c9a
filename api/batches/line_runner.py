"""Runs one line of a batch as a job of the batch class, and waits for its result for as long as it takes.

A line that cannot be accepted now (an overloaded or starting pool, an unreachable Redis) is tried again until the batch
ends. Its job has the same id each time, so that a second submission finds the first one's job.
"""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from api.batches import result_rows
from api.batches.line_requests import LineRequest
from api.batches.result_rows import ResultRow, Unfinished
from api.jobs.completions import CompletionListener
from api.jobs.fallbacks import try_models
from api.jobs.service import RerankService
from api.jobs.submissions import LineJob, SubmissionBuilder
from shared.contracts import RerankRequest, RerankResult, WorkClass
from shared.errors import (
    JobExpired,
    JobNotFound,
    ModelUnavailable,
    Overloaded,
    RateLimited,
    RerankqError,
    StoreDamaged,
    StoreUnavailable,
)
from shared.ledger.batch_record import line_job_id
from shared.ledger.job_ledger import JobLedger

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 15.0
MAX_READS = 32
"""Results that are read at once. Thousands of lines may end together, and each read takes a connection to Redis."""
MAX_LOSSES = 3
"""How often a job that Redis has lost is submitted again."""
_TRY_LATER = (Overloaded, RateLimited, ModelUnavailable, StoreUnavailable)


Jobs = list[tuple[str, str]]
"""The (id, model) of jobs."""


@dataclass(frozen=True, slots=True)
class BatchTerms:
    """What all lines of a batch share; `seconds_left` returns the time until the batch expires."""

    batch_id: str
    owner: str
    seconds_left: Callable[[], float]


class LineRunner:
    """Runs the lines of all batches of this process."""

    def __init__(
        self,
        ledger: JobLedger,
        completions: CompletionListener,
        submissions: SubmissionBuilder,
        service: RerankService,
    ) -> None:
        self._ledger = ledger
        self._completions = completions
        self._submissions = submissions
        self._service = service
        self._reading = asyncio.Semaphore(MAX_READS)

    async def run(self, line: LineRequest, batch: BatchTerms, jobs: Jobs) -> ResultRow:
        """The line's row. Adds its jobs to `jobs`, to be deleted once the row is stored, or is no longer wanted."""
        if line.request is None:
            assert line.error is not None
            return result_rows.failed(line, line.error, batch.batch_id)
        dialect = line.dialect

        async def attempt(request: RerankRequest, key: str | None, _: float | None) -> RerankResult:
            return await self._rank(request, dialect.name, batch, key or "", jobs)

        try:
            # The ids of the jobs of fallback models are derived from the line's.
            result = await try_models(line.request, attempt, idempotency=line_job_id(batch.batch_id, line.number))
        except JobExpired:
            # Its deadline is that of the batch.
            summary = line.summary
            reason = Unfinished.EXPIRED
            return result_rows.unfinished(line.number, summary.custom_id, summary.pairs, batch.batch_id, reason)
        except RerankqError as error:
            return result_rows.failed(line, error, batch.batch_id)
        return result_rows.succeeded(line, dialect, result, batch.batch_id)

    async def _rank(
        self, request: RerankRequest, dialect: str, batch: BatchTerms, key: str, jobs: Jobs
    ) -> RerankResult:
        """The result of the request's job. Raises errors that trying again does not change."""
        job_id, losses, pause = key.replace("\n", "."), 0, FIRST_PAUSE_SECONDS
        while True:
            try:
                return await self._submit_and_wait(request, dialect, batch, job_id, jobs)
            except (JobNotFound, StoreDamaged):
                losses += 1
                if losses >= MAX_LOSSES:
                    raise
                with suppress(StoreUnavailable):
                    await self._ledger.delete_jobs(jobs)
            except _TRY_LATER:
                # Spread out, so that the lines of a window do not all try at once.
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def _submit_and_wait(
        self, request: RerankRequest, dialect: str, batch: BatchTerms, job_id: str, jobs: Jobs
    ) -> RerankResult:
        line = LineJob(job_id, batch.batch_id, max(1.0, batch.seconds_left()))
        submission = await self._submissions.build(request, dialect, batch.owner, WorkClass.BATCH, None, line=line)
        jobs[:] = [job for job in jobs if job[0] != job_id] + [(job_id, submission.model)]
        with self._completions.expect(job_id) as completion:
            acceptance = await self._service.accept(submission)
            completion.accepted = True
            if submission.sizes:
                await completion.wait()
        if completion.lost:
            raise JobNotFound(f"the job {job_id} is lost")
        if completion.scores is not None:
            return await self._service.finished_result(submission, acceptance, completion.scores)
        async with self._reading:
            return await self._service.finished_result(submission, acceptance, None)
