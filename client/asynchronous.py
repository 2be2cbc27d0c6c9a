"""The asyncio client: executes the operations of client.protocol with httpx and asyncio tasks."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from types import TracebackType
from typing import TypeVar, Unpack

import httpx

from client import httpx_calls
from client.errors import RerankError
from client.protocol import Answer, Call, ClientProtocol, Pause, Steps
from client.records import Document, Job, Model, Options, Outcome, Ranking, Request
from client.settings import DEFAULT_RETRIES, DEFAULT_TIMEOUT_SECONDS, ClientSettings

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
        if concurrency < 1:
            raise ValueError("concurrency must be at least 1")
        seconds = self._within(timeout_seconds)
        running: set[asyncio.Task[Outcome]] = set()
        try:
            for position, request in enumerate(requests):
                running.add(asyncio.create_task(self._outcome(position, request, seconds)))
                if len(running) == concurrency:
                    done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        yield task.result()
            while running:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    yield task.result()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _outcome(self, position: int, request: Request, timeout_seconds: float) -> Outcome:
        try:
            ranking = await self._run(self._protocol.rerank_as_batch(request, timeout_seconds))
        except RerankError as error:
            return Outcome(position, request, error=error)
        return Outcome(position, request, ranking=ranking)

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
        try:
            return httpx_calls.answer(await self._http.request(**httpx_calls.request(step)))
        except httpx.HTTPError as error:
            raise httpx_calls.unreachable(self._http.base_url, error) from error
