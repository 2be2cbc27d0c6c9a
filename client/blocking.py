"""The blocking client: executes the operations of client.protocol with httpx and threads."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import TypeVar, Unpack

import httpx

from client import httpx_calls
from client.concurrency import ThreadedRequests
from client.protocol import Answer, Call, ClientProtocol, Pause, Steps
from client.records import Document, Job, Model, Options, Outcome, Ranking, Request
from client.settings import DEFAULT_RETRIES, DEFAULT_TIMEOUT_SECONDS, ClientSettings

T = TypeVar("T")


class Client:
    """A client of one service, safe to share between threads. Use it as a context manager, or close it.

    Every method raises errors of `client.errors`. `timeout_seconds` bounds a whole method call, retries included.
    """

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
        self._http = httpx.Client(**httpx_calls.client_options(settings))

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def rerank(
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
        return self._run(self._protocol.rerank(request, self._within(timeout_seconds)))

    def submit(
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
        return self._run(self._protocol.submit(request, self._within(timeout_seconds)))

    def job(self, job_id: str) -> Job:
        """Get the current status of a job."""
        return self._run(self._protocol.job(job_id, self._timeout_seconds))

    def wait(
        self, job_id: str, *, timeout_seconds: float | None = None, on_progress: Callable[[Job], None] | None = None
    ) -> Job:
        """Wait until the job has a final status; `on_progress` receives its state about once a second."""
        return self._run(self._protocol.wait(job_id, self._within(timeout_seconds), on_progress))

    def results(self, job_id: str) -> Ranking:
        """Get the ranking of a succeeded job."""
        return self._run(self._protocol.results(job_id, self._timeout_seconds))

    def cancel(self, job_id: str) -> Job:
        """Cancel a job. A job that has ended is unchanged."""
        return self._run(self._protocol.cancel(job_id, self._timeout_seconds))

    def delete(self, job_id: str) -> None:
        """Delete a job and its result. A running job is canceled first."""
        self._run(self._protocol.delete(job_id, self._timeout_seconds))

    def models(self) -> list[Model]:
        """List the served models, the default one first."""
        return self._run(self._protocol.models(self._timeout_seconds))

    def rerank_many(
        self, requests: Iterable[Request], *, concurrency: int = 8, timeout_seconds: float | None = None
    ) -> Iterator[Outcome]:
        """Rank requests as jobs of the batch class, and yield outcomes, errors included, as they complete.

        At most `concurrency` requests are in progress, and `requests` is read no faster. `timeout_seconds` applies to
        each request. When the caller stops iterating, submitted jobs continue; requests with the same idempotency keys
        return their results later.
        """
        seconds = self._within(timeout_seconds)

        def rank(request: Request) -> Ranking:
            return self._run(self._protocol.rerank_as_batch(request, seconds))

        return ThreadedRequests(rank, concurrency).run(requests)

    def _within(self, timeout_seconds: float | None) -> float:
        return self._timeout_seconds if timeout_seconds is None else timeout_seconds

    def _run(self, steps: Steps[T]) -> T:
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
                answer = self._execute(step)
            except BaseException as error:
                raised = error

    def _execute(self, step: Call | Pause) -> Answer | None:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        try:
            return httpx_calls.answer(self._http.request(**httpx_calls.request(step)))
        except httpx.HTTPError as error:
            raise httpx_calls.unreachable(self._http.base_url, error) from error
