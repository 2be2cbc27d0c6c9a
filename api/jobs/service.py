"""The one handler behind every dialect: accept a request as a job, wait for it, read it, cancel it.

Knows jobs and models; knows nothing of HTTP or of a dialect's shapes.
"""

import asyncio
from contextlib import suppress
from typing import NamedTuple

from api.http.error_responses import error_of
from api.jobs.completions import CompletionListener
from api.jobs.ranking import rank
from api.jobs.submissions import SubmissionBuilder, unavailable
from shared.contracts import RerankRequest, RerankResult, WorkClass
from shared.errors import (
    JobCanceled,
    JobExpired,
    JobNotFinished,
    JobNotFound,
    ModelUnavailable,
    StoreDamaged,
    StoreUnavailable,
    WaitTimedOut,
)
from shared.ledger import encoding
from shared.ledger.job_ledger import Acceptance, JobLedger, Submission
from shared.ledger.job_record import JobRecord, JobStatus
from shared.store.client import RETRY_AFTER_SECONDS

_POOL_CHECK_SECONDS = 1.0
_START_PATIENCE_SECONDS = 10.0
"""How long a caller whose pool has failed before waits for somebody to try again, and so for a worker to begin."""


class _Answered(NamedTuple):
    """Of a job that is known to have succeeded, what its answer says of it."""

    id: str
    model: str
    created_ms: int


class RerankService:
    """Jobs in, results out."""

    def __init__(self, *, ledger: JobLedger, replies: CompletionListener, preparation: SubmissionBuilder) -> None:
        self.models = preparation.models
        self.limits = preparation.limits
        self._ledger = ledger
        self._replies = replies
        self._preparation = preparation
        self._pools = preparation.pools

    async def rerank(
        self,
        request: RerankRequest,
        *,
        dialect: str,
        owner: str,
        wait_seconds: float | None,
        idempotency: str | None = None,
    ) -> RerankResult:
        """Submit and wait for the result.

        A caller that is cancelled meanwhile cancels its job, unless it gave an Idempotency-Key: then it may come back
        for it. Raises WaitTimedOut past `wait_seconds` (None: the server's limit), the job going on; and what `submit`
        and `result` raise.
        """
        limit = self.limits.wait_seconds
        seconds = limit if wait_seconds is None else min(wait_seconds, limit)
        submission = await self._preparation.prepare(request, dialect, owner, WorkClass.INTERACTIVE, idempotency)
        try:
            acceptance, scores = await self._run(submission, seconds)
        except (asyncio.CancelledError, ModelUnavailable):
            if idempotency is None:
                await asyncio.shield(self._abandon(submission.job_id))
            raise
        if scores is not None:
            job = _Answered(submission.job_id, submission.model, acceptance.created_ms)
            return rank(job, submission.request, [encoding.decode_scores(scores)], submission.rest)
        # Another submission's job may know other scores: it is read as it was accepted.
        return await self._outcome(acceptance.job_id, None if acceptance.existing else submission)

    async def _run(self, submission: Submission, seconds: float) -> tuple[Acceptance, bytes | None]:
        """Submit and wait; answers which job ended, and its scores where they came with the news.

        Raises WaitTimedOut, ModelUnavailable, or StoreDamaged when the job has vanished.
        """
        with self._replies.expect(submission.job_id) as ended:
            acceptance = await self._ledger.submit(submission)
            ended.accepted = not acceptance.existing
            if not acceptance.existing and await self._wait(ended, submission, seconds):
                if ended.lost:
                    raise _lost("this request")
                return acceptance, ended.scores
        job_id = acceptance.job_id
        if acceptance.existing and (await self.job(job_id, submission.owner, wait_seconds=seconds)).status.final:
            return acceptance, None
        raise WaitTimedOut(
            f"no result within {seconds:g} s; the job goes on at /v1/jobs/{job_id}",
            job_id=job_id,
            retry_after=self._pools.retry_after(submission.model),
        )

    async def submit(
        self, request: RerankRequest, *, dialect: str, owner: str, idempotency: str | None = None
    ) -> JobRecord:
        """Accept a request as a job that nobody waits for.

        Raises ModelNotFound, ModelUnavailable, InvalidRequest, IdempotencyConflict.
        """
        submission = await self._preparation.prepare(request, dialect, owner, WorkClass.BATCH, idempotency)
        acceptance = await self._ledger.submit(submission)
        return await self.job(acceptance.job_id, owner)

    async def job(self, job_id: str, owner: str, *, wait_seconds: float = 0.0) -> JobRecord:
        """A job's record, as soon as it has ended or `wait_seconds` have passed. Raises JobNotFound."""
        record = await self._read(job_id, owner)
        if wait_seconds and not record.status.final:
            with self._replies.expect(job_id) as ended:
                record = await self._read(job_id, owner)
                ended.accepted = True
                if not record.status.final:
                    await self._ring(ended, min(wait_seconds, self.limits.wait_seconds))
                    record = await self._read(job_id, owner)
        return record

    async def result(self, record: JobRecord) -> RerankResult:
        """The result of a job that `job` has shown.

        Raises JobNotFound, JobNotFinished, JobCanceled, JobExpired or ScoringFailed.
        """
        return await self._outcome(record.id, None)

    async def cancel(self, job_id: str, owner: str) -> JobRecord:
        """Cancel a job that has not ended; one that has stays as it is. Raises JobNotFound."""
        await self._ledger.cancel(await self._read(job_id, owner))
        return await self._read(job_id, owner)

    async def delete(self, job_id: str, owner: str) -> None:
        """Remove a job and its result, canceling it first. Raises JobNotFound."""
        if not await self._ledger.delete(await self._read(job_id, owner)):
            raise _not_found(job_id)

    async def _wait(self, ended: asyncio.Event, submission: Submission, seconds: float) -> bool:
        """Whether the job ended in time.

        Raises ModelUnavailable when its pool fails to start meanwhile, or failed before and nobody tries again.
        """
        if not submission.sizes:
            # It had ended when it was accepted.
            return True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        patient_until = loop.time() + _START_PATIENCE_SECONDS
        known = self._pools.pool(submission.model).signals.failed_at
        while (left := deadline - loop.time()) > 0:
            if await self._ring(ended, min(left, _POOL_CHECK_SECONDS)):
                return True
            failed = self._pools.start_failure(submission.model)
            if failed is not None and (failed.at != known or loop.time() >= patient_until):
                raise unavailable(submission.model, failed)
        return ended.is_set()

    @staticmethod
    async def _ring(ended: asyncio.Event, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await ended.wait()
        except TimeoutError:
            return False
        return True

    async def _abandon(self, job_id: str) -> None:
        """Cancel the job of a caller that has left. Without Redis it is scored for nobody, and that is all."""
        with suppress(StoreUnavailable):
            if (record := await self._ledger.read(job_id)) is not None:
                await self._ledger.cancel(record)

    async def _read(self, job_id: str, owner: str) -> JobRecord:
        record = await self._ledger.read(job_id)
        if record is None or record.owner != owner:
            raise _not_found(job_id)
        return record

    async def _outcome(self, job_id: str, submission: Submission | None) -> RerankResult:
        """The result of a job that has ended; `submission` when the caller still has it at hand."""
        record, shards = await self._ledger.read_finished(job_id)
        if record is None:
            raise _not_found(job_id)
        accepted = (submission.request, submission.rest) if submission else await self._ledger.read_request(job_id)
        is_whole = accepted is not None and len(accepted[0].documents) == record.pairs and len(shards) == record.shards
        if accepted is None or (record.status is JobStatus.SUCCEEDED and not is_whole):
            # Deleted while it was read, or a part of it is lost.
            if await self._ledger.read(job_id) is None:
                raise _not_found(job_id)
            raise _lost("the result of this job")
        request, rest = accepted
        match record.status:
            case JobStatus.SUCCEEDED:
                return rank(record, request, shards, rest)
            case JobStatus.FAILED:
                raise error_of(record.failure)
            case JobStatus.CANCELED:
                raise JobCanceled(f"the job {job_id} was canceled")
            case JobStatus.EXPIRED:
                raise JobExpired(f"the job {job_id} passed its deadline before it was scored")
            case _:
                raise JobNotFinished(f"the job {job_id} is {record.status}; its result is not there yet")


def _not_found(job_id: str) -> JobNotFound:
    return JobNotFound(f"there is no job {job_id[:100]!r}", param="id")


def _lost(what: str) -> StoreDamaged:
    return StoreDamaged(f"the job store has lost {what}; send it again", retry_after=RETRY_AFTER_SECONDS)
