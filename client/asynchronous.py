"""The asyncio client: executes the operations of client.protocol with httpx and asyncio tasks."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from operator import attrgetter
from tempfile import TemporaryFile
from types import TracebackType
from typing import Any, BinaryIO, TypeVar, Unpack

import httpx

from client import httpx_calls
from client.batch_protocol import BatchProtocol, BatchTerms, many_requests
from client.batch_records import BatchJob, RequestResult, ResultsPage, StoredFile
from client.calls import Answer, Call, Pause, Steps
from client.concurrency import run_concurrently
from client.protocol import RERANK_PATH, ClientProtocol
from client.records import Document, Job, JobOutcome, Model, Options, Outcome, Ranking, Request
from client.result_files import read_results
from client.settings import DEFAULT_RETRIES, DEFAULT_TIMEOUT_SECONDS, ClientSettings
from client.uploads import Source, Upload

T = TypeVar("T")


class AsyncClient:
    """Has the same methods as Client. Use it as an asynchronous context manager, or close it."""

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        retries: int = DEFAULT_RETRIES,
    ) -> None:
        """`url` and `api_key` default to RERANKQ_URL and RERANKQ_API_KEY. Raises BadAddress."""
        settings = ClientSettings.of(url, api_key, timeout_seconds, retries)
        self._timeout_seconds = settings.timeout_seconds
        self._protocol = ClientProtocol(retries=settings.retries)
        self._batches = BatchProtocol(retries=settings.retries)
        self._http = httpx.AsyncClient(**httpx_calls.client_options(settings))

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def rerank(
        self,
        query: str,
        documents: Sequence[Document],
        *,
        idempotency_key: str | None = None,
        timeout_seconds: float | None = None,
        **options: Unpack[Options],
    ) -> Ranking:
        """Rank the documents and wait for the result.

        A timeout or an interruption cancels the job, unless there is an `idempotency_key`: a later call with the same
        key then returns the result of the same job.
        """
        request = Request(query, documents, options, idempotency_key)
        return await self._run(self._protocol.rerank(request, self._within(timeout_seconds)))

    async def submit(
        self,
        query: str,
        documents: Sequence[Document],
        *,
        idempotency_key: str | None = None,
        timeout_seconds: float | None = None,
        **options: Unpack[Options],
    ) -> Job:
        """Submit a job of the batch class: interactive requests are served first."""
        request = Request(query, documents, options, idempotency_key)
        return await self._run(self._protocol.submit(request, self._within(timeout_seconds)))

    async def job(self, job_id: str) -> Job:
        """Get the current status of a job."""
        return await self._run(self._protocol.job(job_id, self._timeout_seconds))

    async def wait(
        self, job_id: str, *, timeout_seconds: float | None = None, on_progress: Callable[[Job], None] | None = None
    ) -> Job:
        """Wait until the job has a final status; `on_progress` receives its state about once a second."""
        return await self._run(self._protocol.wait(job_id, self._within(timeout_seconds), on_progress))

    async def wait_many(
        self, job_ids: Iterable[str], *, concurrency: int = 32, timeout_seconds: float | None = None
    ) -> list[JobOutcome]:
        """Wait until all jobs have a final status; one outcome per job, errors included, in the order of the ids.

        `timeout_seconds` applies to the whole call. At most `concurrency` jobs are followed at once.
        """
        deadline = time.monotonic() + self._within(timeout_seconds)

        def wait(numbered: tuple[int, str]) -> Awaitable[JobOutcome]:
            return self._run(self._protocol.wait_for(*numbered, max(deadline - time.monotonic(), 0)))

        async with aclosing(run_concurrently(wait, enumerate(job_ids), concurrency)) as outcomes:
            return sorted([outcome async for outcome in outcomes], key=attrgetter("position"))

    async def results(self, job_id: str) -> Ranking:
        """Get the ranking of a succeeded job."""
        return await self._run(self._protocol.results(job_id, self._timeout_seconds))

    async def cancel(self, job_id: str) -> Job:
        """Cancel a job. A job that has ended is unchanged."""
        return await self._run(self._protocol.cancel(job_id, self._timeout_seconds))

    async def delete(self, job_id: str) -> None:
        """Delete a job and its result. A running job is canceled first."""
        await self._run(self._protocol.delete(job_id, self._timeout_seconds))

    async def models(self) -> list[Model]:
        """List the served models, the default one first."""
        return await self._run(self._protocol.models(self._timeout_seconds))

    async def rerank_many(
        self, requests: Iterable[Request], *, concurrency: int = 8, timeout_seconds: float | None = None
    ) -> AsyncGenerator[Outcome, None]:
        """Rank requests as jobs of the batch class, and yield outcomes, errors included, as they complete.

        At most `concurrency` requests are in progress, and `requests` is read no faster. `timeout_seconds` applies to
        each request. When the caller stops iterating, submitted jobs continue; requests with the same idempotency keys
        return their results later.
        """
        seconds = self._within(timeout_seconds)

        def rank(numbered: tuple[int, Request]) -> Awaitable[Outcome]:
            return self._run(self._protocol.rank_one(*numbered, seconds))

        async with aclosing(run_concurrently(rank, enumerate(requests), concurrency)) as outcomes:
            async for outcome in outcomes:
                yield outcome

    async def upload_file(
        self, source: Source | Upload, *, on_progress: Callable[[int], None] | None = None
    ) -> StoredFile:
        """Upload a file of requests: a path, or an open binary file that can seek. It is not loaded into memory.

        `on_progress` receives the bytes that were sent. An outage may last as long as the client's timeout.
        """
        upload = source if isinstance(source, Upload) else Upload.of(source)
        return await self._run(self._batches.upload(upload, self._timeout_seconds, on_progress))

    async def download_file(self, file_id: str, target: BinaryIO) -> None:
        """Replace the content of `target`, a file that can seek, by that of a stored file."""
        await self._run(self._batches.download(file_id, target, self._timeout_seconds))

    async def delete_file(self, file_id: str) -> None:
        """Delete a stored file."""
        await self._run(self._batches.delete_file(file_id, self._timeout_seconds))

    async def create_batch(
        self,
        source: Source | Upload | StoredFile,
        *,
        endpoint: str = RERANK_PATH,
        completion_window: str = "24h",
        metadata: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[Options],
    ) -> BatchJob:
        """Create a batch from a file of requests, one JSON object a line, which is uploaded first.

        `endpoint` is the path whose format the lines have that name none. `options` apply to requests without them.
        Returns the same batch for the same uploaded file and `idempotency_key`.
        """
        terms = BatchTerms(endpoint, completion_window, metadata or {}, options)
        file = Upload.of(source) if not isinstance(source, Upload | StoredFile) else source
        return await self._run(self._batches.create(file, terms, idempotency_key, self._timeout_seconds))

    async def batch(self, batch_id: str) -> BatchJob:
        """Get the current status of a batch."""
        return await self._run(self._batches.batch(batch_id, self._timeout_seconds))

    async def batches(self, limit: int = 20) -> list[BatchJob]:
        """List the newest batches, up to 100."""
        return await self._run(self._batches.batches(limit, self._timeout_seconds))

    async def has_batches(self) -> bool:
        """Whether the service has batches: older ones lack them."""
        return await self._run(self._batches.has_batches(self._timeout_seconds))

    async def wait_batch(
        self,
        batch_id: str,
        *,
        timeout_seconds: float | None = None,
        on_progress: Callable[[BatchJob], None] | None = None,
    ) -> BatchJob:
        """Wait until the batch has a final status, without `timeout_seconds` for as long as it takes.

        `on_progress` receives its state every few seconds. An outage may last as long as the client's timeout.
        """
        return await self._run(self._batches.wait(batch_id, timeout_seconds, self._timeout_seconds, on_progress))

    async def cancel_batch(self, batch_id: str) -> BatchJob:
        """Cancel a batch. What is done is kept; a batch that has ended is unchanged."""
        return await self._run(self._batches.cancel(batch_id, self._timeout_seconds))

    async def batch_results(self, batch_id: str) -> AsyncGenerator[RequestResult, None]:
        """Download the results of a batch that has ended to temporary files, and yield them in order of their lines."""
        with TemporaryFile() as output, TemporaryFile() as errors:
            await self._run(self._batches.results(batch_id, output, errors, self._timeout_seconds))
            for result in read_results(output, errors):
                yield result

    async def submit_many(
        self,
        requests: Sequence[Request | Mapping[str, Any]],
        *,
        deadline: str | float = "24h",
        wake: str = "now",
        metadata: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        **defaults: Unpack[Options],
    ) -> Job:
        """Submit one job of many requests. `defaults` apply to requests without these options.

        `deadline` is a time such as `30m`, or in seconds. With `wake="when_warm"` the job starts no worker.
        """
        body = many_requests(requests, deadline=deadline, wake=wake, metadata=metadata or {}, defaults=defaults)
        return await self._run(self._batches.submit_many(body, idempotency_key, self._timeout_seconds))

    async def results_page(self, job_id: str, after: int = 0, limit: int = 100) -> ResultsPage:
        """Get a page of results of a job of many requests, also while it runs: `limit` behind the first `after`."""
        return await self._run(self._batches.results_page(job_id, after, limit, self._timeout_seconds))

    async def iter_results(
        self, job_id: str, *, after: int = 0, limit: int = 100
    ) -> AsyncGenerator[RequestResult, None]:
        """Yield the results of a job of many requests in order, as they become ready, until the job has ended.

        `after` is how many to leave out, `limit` how many to get at once.
        """
        position: int | None = after
        while position is not None:
            page = await self._run(self._batches.next_results(job_id, position, limit, self._timeout_seconds))
            for result in page.results:
                yield result
            position = page.next

    def _within(self, timeout_seconds: float | None) -> float:
        return self._timeout_seconds if timeout_seconds is None else timeout_seconds

    async def _run(self, steps: Steps[T]) -> T:
        """Execute an operation."""
        answer: Answer | None = None
        raised: BaseException | None = None
        while True:
            try:
                step = steps.send(answer) if raised is None else steps.throw(raised)
            except StopIteration as end:
                result: T = end.value
                return result
            answer = raised = None
            try:
                answer = await self._execute(step)
            except BaseException as error:
                raised = error

    async def _execute(self, step: Call | Pause) -> Answer | None:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        return await httpx_calls.execute_async(self._http, step)
