"""Serves rerank requests of every dialect: submits jobs, waits for them, reads, cancels and deletes them.

Knows jobs and models; knows nothing of HTTP or of the dialects' formats.
"""

import asyncio
from contextlib import nullcontext, suppress
from time import perf_counter
from typing import NamedTuple

from api.jobs.completions import CompletionListener, JobCompletion
from api.jobs.job_errors import error_from_failure, lost, not_found
from api.jobs.ranking import rank
from api.jobs.submissions import SubmissionBuilder, model_unavailable
from api.metrics.counts import ServiceCounts
from shared.contracts import RerankRequest, RerankResult, WorkClass
from shared.errors import (
    JobCanceled,
    JobExpired,
    JobNotFinished,
    ModelUnavailable,
    StoreUnavailable,
    WaitTimedOut,
)
from shared.ledger import encoding
from shared.ledger.job_index import AnyJob, JobIndex
from shared.ledger.job_ledger import JobLedger
from shared.ledger.job_record import DeadLetter, JobFilter, JobRecord, JobStatus, Position
from shared.ledger.submission import DEFAULT_OPTIONS, Acceptance, JobOptions, Submission
from shared.tracing import span

_POOL_CHECK_SECONDS = 1.0
_RESTART_WAIT_SECONDS = 10.0
"""How long a request waits for the next start attempt when the last start of its pool failed."""


class _SucceededJob(NamedTuple):
    """The fields of a RankedJob, for a job whose record was not read."""

    id: str
    model: str
    created_ms: int


class RerankService:
    """Runs rerank requests as jobs. Every method raises StoreUnavailable when Redis is unreachable."""

    def __init__(
        self,
        *,
        ledger: JobLedger,
        index: JobIndex,
        completions: CompletionListener,
        submissions: SubmissionBuilder,
        counts: ServiceCounts | None = None,
    ) -> None:
        self.models = submissions.models
        self.limits = submissions.limits
        self._counts = counts or ServiceCounts()
        self._ledger = ledger
        self._index = index
        self._completions = completions
        self._submissions = submissions
        self._pools = submissions.pools
        self._admission = submissions.admission

    async def rerank(
        self,
        request: RerankRequest,
        *,
        dialect: str,
        owner: str,
        wait_seconds: float | None,
        idempotency: str | None = None,
        patient: bool = False,
        options: JobOptions = DEFAULT_OPTIONS,
    ) -> RerankResult:
        """Submit an interactive job and return its result.

        Raises WaitTimedOut after `wait_seconds` (None: the server's limit); the job continues, in the batch class
        unless the caller is `patient` (it has named its wait, and gets the job afterwards) or may repeat the request
        under its Idempotency-Key. Raises Overloaded when the result would not be ready in time: within a patient
        caller's wait, otherwise within the pool's `max_wait_seconds`. Also raises what `submit` and `result` raise.
        Cancelling this call cancels the job, except under an Idempotency-Key.
        """
        limit, started = self.limits.wait_seconds, perf_counter()
        seconds = limit if wait_seconds is None else min(wait_seconds, limit)
        with self._counts.request(dialect, WorkClass.INTERACTIVE):
            with span("admission"):
                submission = await self._submissions.build(
                    request,
                    dialect,
                    owner,
                    WorkClass.INTERACTIVE,
                    idempotency,
                    seconds if patient else None,
                    options=options,
                )
            try:
                acceptance, scores = await self._submit_and_wait(submission, seconds)
            except (asyncio.CancelledError, ModelUnavailable):
                if idempotency is None:
                    await asyncio.shield(self._cancel_abandoned(submission.job_id))
                raise
            except WaitTimedOut:
                if idempotency is None and not patient:
                    with suppress(StoreUnavailable):
                        await self._ledger.demote(submission.job_id, submission.model)
                raise
            result = await self.finished_result(submission, acceptance, scores)
        self._counts.waited(submission.model, started)
        return result

    async def finished_result(
        self, submission: Submission, acceptance: Acceptance, scores: bytes | None
    ) -> RerankResult:
        """The result of a submitted job that has ended; `scores` are those that the notification included.

        Raises what `result` raises.
        """
        if scores is not None:
            job = _SucceededJob(submission.job_id, submission.model, acceptance.created_ms)
            with span("rank"):
                return rank(job, submission.request, [encoding.decode_scores(scores)], submission.known_scores)
        # An existing job has its own known scores, which may differ from this submission's.
        return await self._read_result(acceptance.job_id, None if acceptance.existing else submission)

    async def _submit_and_wait(self, submission: Submission, seconds: float) -> tuple[Acceptance, bytes | None]:
        """Return the job that ended, and its encoded scores if the notification included them.

        Raises WaitTimedOut, Overloaded, ModelUnavailable, or StoreDamaged when Redis has lost the job.
        """
        # A job without shards needs no wait.
        waiting = self._admission.waiting() if submission.sizes else nullcontext()
        with waiting, self._completions.expect(submission.job_id) as completion:
            acceptance = await self.accept(submission)
            completion.accepted = not acceptance.existing
            with span("wait"):
                ended = not acceptance.existing and await self._wait(completion, submission, seconds)
            if ended:
                if completion.lost:
                    raise lost("this request")
                return acceptance, completion.scores
        job_id = acceptance.job_id
        if acceptance.existing and (await self.job(job_id, submission.owner, wait_seconds=seconds)).status.final:
            return acceptance, None
        raise WaitTimedOut(
            f"no result within {seconds:g} s; the job continues at /v1/jobs/{job_id}",
            job_id=job_id,
            retry_after=self._pools.retry_after(submission.model),
        )

    async def submit(
        self,
        request: RerankRequest,
        *,
        dialect: str,
        owner: str,
        idempotency: str | None = None,
        options: JobOptions = DEFAULT_OPTIONS,
        wait_seconds: float | None = None,
    ) -> JobRecord:
        """Submit a job and return its record: a batch job, or an interactive one if its caller then waits.

        Raises ModelNotFound, ModelUnavailable, InvalidRequest, IdempotencyConflict or Overloaded.
        """
        work_class = WorkClass.BATCH if wait_seconds is None else WorkClass.INTERACTIVE
        with self._counts.request(dialect, work_class):
            submission = await self._submissions.build(
                request, dialect, owner, work_class, idempotency, wait_seconds, options=options
            )
            acceptance = await self.accept(submission)
        return await self.job(acceptance.job_id, owner)

    async def accept(self, submission: Submission) -> Acceptance:
        """Submit to the ledger, and count what it accepts. Raises what JobLedger.submit raises."""
        with span("submit", **{"gen_ai.request.model": submission.model, "rerankq.job": submission.job_id}):
            acceptance = await self._ledger.submit(submission)
        if not acceptance.existing:
            pairs = len(submission.request.documents)
            cached = pairs - sum(size.pairs for size in submission.sizes)
            self._counts.accepted(submission.model, submission.work_class, pairs, cached)
        return acceptance

    async def job(self, job_id: str, owner: str, *, wait_seconds: float = 0.0) -> JobRecord:
        """Wait up to `wait_seconds` for the job to end, and return its record. Raises JobNotFound."""
        record = await self._read(job_id, owner)
        if wait_seconds and not record.status.final:
            with self._completions.expect(job_id) as completion:
                with suppress(StoreUnavailable):
                    # Otherwise the polling notices the end.
                    await self._ledger.listen(record)
                record = await self._read(job_id, owner)
                completion.accepted = True
                if not record.status.final:
                    await self._is_set_within(completion, min(wait_seconds, self.limits.wait_seconds))
                    record = await self._read(job_id, owner)
        return record

    async def jobs(
        self, owner: str | None, wanted: JobFilter, limit: int, after: Position | None
    ) -> tuple[list[AnyJob], Position | None]:
        """Jobs of an owner (None: of all), newest first, and the position to go on from. See JobIndex.page."""
        return await self._index.page(owner, wanted, limit, after)

    async def dead_letters(self, limit: int) -> list[DeadLetter]:
        """The newest dead letters of all owners, newest first."""
        return await self._index.dead_letters(limit)

    async def result(self, record: JobRecord) -> RerankResult:
        """The result of a job whose record `job` returned.

        Raises JobNotFound, JobNotFinished, JobCanceled, JobExpired, ScoringFailed, InvalidRequest (TextTooLong, or a
        limit that does not fit the model) or StoreDamaged.
        """
        return await self._read_result(record.id, None)

    async def cancel(self, job_id: str, owner: str) -> JobRecord:
        """Cancel a job and return its record. A job that has ended does not change. Raises JobNotFound."""
        await self._ledger.cancel(await self._read(job_id, owner))
        return await self._read(job_id, owner)

    async def delete(self, job_id: str, owner: str) -> None:
        """Cancel a job if it has not ended, and remove it and its result. Raises JobNotFound."""
        if not await self._ledger.delete(await self._read(job_id, owner)):
            raise not_found(job_id)

    async def _wait(self, completion: JobCompletion, submission: Submission, seconds: float) -> bool:
        """Whether the job ended in time.

        Raises ModelUnavailable when the pool's start fails during the wait, or when the last start failed before it
        and no new attempt begins.
        """
        if not submission.sizes:
            # Without shards, the job succeeded on submission.
            return True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        restart_deadline = loop.time() + _RESTART_WAIT_SECONDS
        failed_before = self._pools.pool(submission.model).signals.failed_at
        while (remaining := deadline - loop.time()) > 0:
            if await self._is_set_within(completion, min(remaining, _POOL_CHECK_SECONDS)):
                return True
            failure = self._pools.start_failure(submission.model)
            if failure is not None and (failure.at != failed_before or loop.time() >= restart_deadline):
                raise model_unavailable(submission.model, failure)
        return completion.is_set()

    @staticmethod
    async def _is_set_within(completion: JobCompletion, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await completion.wait()
        except TimeoutError:
            return False
        return True

    async def _cancel_abandoned(self, job_id: str) -> None:
        """Cancel a job without a waiting client. While Redis is unreachable, the job stays and a worker scores it."""
        with suppress(StoreUnavailable):
            if (record := await self._ledger.read(job_id)) is not None:
                await self._ledger.cancel(record)

    async def _read(self, job_id: str, owner: str) -> JobRecord:
        record = await self._ledger.read(job_id)
        if record is None or record.owner != owner:
            raise not_found(job_id)
        return record

    async def _read_result(self, job_id: str, submission: Submission | None) -> RerankResult:
        """The result of a job that has ended. `submission` saves reading the request."""
        record, shards = await self._ledger.read_finished(job_id)
        if record is None:
            raise not_found(job_id)
        stored = (
            (submission.request, submission.known_scores) if submission else await self._ledger.read_request(job_id)
        )
        complete = stored is not None and len(stored[0].documents) == record.pairs and len(shards) == record.shards
        if stored is None or (record.status is JobStatus.SUCCEEDED and not complete):
            # The job was deleted during the read, or Redis has lost a part of it.
            if await self._ledger.read(job_id) is None:
                raise not_found(job_id)
            raise lost("the result of this job")
        request, known = stored
        match record.status:
            case JobStatus.SUCCEEDED:
                return rank(record, request, shards, known)
            case JobStatus.FAILED:
                raise error_from_failure(record.failure)
            case JobStatus.CANCELED:
                raise JobCanceled(f"the job {job_id} was canceled")
            case JobStatus.EXPIRED:
                raise JobExpired(f"the job {job_id} passed its deadline before it was scored")
            case _:
                raise JobNotFinished(f"the job {job_id} is {record.status}; its result is not available yet")
