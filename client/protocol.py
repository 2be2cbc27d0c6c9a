"""The sequence of HTTP calls, pauses and retries of each operation on jobs and models; see client.calls."""

import json
import math
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from urllib.parse import quote

from client.calls import ANSWER_SECONDS, CLEANUP_SECONDS, GRACE_SECONDS, Call, Caller, Pause, Steps, attempt
from client.errors import JobError, RerankError, UnexpectedAnswer, WaitTimedOut
from client.events import SILENCE_SECONDS, JobEvents
from client.records import Job, JobOutcome, Model, Outcome, Ranking, Request

RERANK_PATH = "/superset/v1/rerank"
"""The superset's own path: the operator may serve another dialect at the root."""
POLL_SECONDS = 20
"""The length of one long poll, shorter than the timeouts of common proxies."""
_POLL_PAUSE = 0.1
_LONGEST_STREAM, _SHORT_STREAM = 3600, 1.0
"""Seconds. A longer wait has several streams. A stream that breaks sooner is not worth another one."""


class ClientProtocol(Caller):
    """The operations on jobs and models. All raise RerankError."""

    def rerank(self, request: Request, timeout_seconds: float) -> Steps[Ranking]:
        """Rank and wait for the result. Raises WaitTimedOut.

        A timeout or an interruption cancels the job, unless the request has an idempotency key.
        """
        deadline = self._clock() + timeout_seconds
        answer = yield from self._call(
            _post(request, f"wait={_whole_seconds(min(timeout_seconds, POLL_SECONDS))}"), deadline
        )
        if answer.status != 202:
            return Ranking.read(answer.json())
        job = Job.read(answer.json())
        try:
            return (yield from self._ranking(job, deadline))
        except GeneratorExit:
            raise
        except BaseException:
            if request.idempotency_key is None:
                yield from self._call_once(Call("POST", job_path(job.id, "/cancel"), seconds=CLEANUP_SECONDS))
            raise

    def rerank_as_batch(self, request: Request, timeout_seconds: float) -> Steps[Ranking]:
        """Rank as a job of the batch class. The job continues when the caller stops waiting.

        A job that ended without a ranking is deleted, so that the same idempotency key can be used for another attempt.
        """
        deadline = self._clock() + timeout_seconds
        job = yield from self._submit(request, deadline)
        try:
            return (yield from self._ranking(job, deadline))
        except JobError:
            yield from self._call_once(Call("DELETE", job_path(job.id), seconds=CLEANUP_SECONDS))
            raise

    def submit(self, request: Request, timeout_seconds: float) -> Steps[Job]:
        """Submit a job without waiting for it."""
        return (yield from self._submit(request, self._clock() + timeout_seconds))

    def job(self, job_id: str, timeout_seconds: float) -> Steps[Job]:
        """The job's current status. Raises JobNotFound."""
        answer = yield from self._call(Call("GET", job_path(job_id)), self._clock() + timeout_seconds)
        return Job.read(answer.json())

    def wait(self, job_id: str, timeout_seconds: float, on_progress: Callable[[Job], None] | None = None) -> Steps[Job]:
        """Wait until the job has a final status; `on_progress` is called with its state, at most about once a second.

        Follows the job's events where the service offers them, and polls otherwise. Raises WaitTimedOut, JobNotFound.
        """
        deadline = self._clock() + timeout_seconds
        answer = yield from self._call(Call("GET", job_path(job_id)), deadline)
        events = JobEvents(Job.read(answer.json()), on_progress)
        yield from self._wait_until_final(events, deadline)
        return events.job

    def wait_for(self, position: int, job_id: str, timeout_seconds: float) -> Steps[JobOutcome]:
        """Wait for one of many jobs. Errors become part of the outcome."""
        try:
            return JobOutcome(position, job_id, (yield from self.wait(job_id, timeout_seconds)))
        except RerankError as error:
            return JobOutcome(position, job_id, error=error)

    def rank_one(self, position: int, request: Request, timeout_seconds: float) -> Steps[Outcome]:
        """Rank one of many requests, as a job of the batch class. Errors become part of the outcome."""
        try:
            ranking = yield from self.rerank_as_batch(request, timeout_seconds)
        except RerankError as error:
            return Outcome(position, request, error=error)
        return Outcome(position, request, ranking=ranking)

    def results(self, job_id: str, timeout_seconds: float) -> Steps[Ranking]:
        """The ranking of a succeeded job. Raises JobNotFinished, JobError, JobNotFound."""
        return (yield from self._results(job_id, self._clock() + timeout_seconds))

    def cancel(self, job_id: str, timeout_seconds: float) -> Steps[Job]:
        """Cancel a job. A job that has ended is unchanged. Raises JobNotFound."""
        answer = yield from self._call(Call("POST", job_path(job_id, "/cancel")), self._clock() + timeout_seconds)
        return Job.read(answer.json())

    def delete(self, job_id: str, timeout_seconds: float) -> Steps[None]:
        """Delete a job and its result. A running job is canceled first. Raises JobNotFound."""
        yield from self._call(Call("DELETE", job_path(job_id)), self._clock() + timeout_seconds)

    def models(self, timeout_seconds: float) -> Steps[list[Model]]:
        """The served models, the default one first."""
        data = (yield from self._call(Call("GET", "/v1/models"), self._clock() + timeout_seconds)).json()
        if not isinstance(data, dict) or not isinstance(data.get("data"), list):
            raise UnexpectedAnswer(f"not a list of models: {str(data)[:200]}")
        return [Model.read(model) for model in data["data"]]

    def _submit(self, request: Request, deadline: float) -> Steps[Job]:
        # The idempotency key makes a repeated call safe when the first response was lost.
        keyed = replace(request, idempotency_key=request.idempotency_key or uuid.uuid4().hex)
        answer = yield from self._call(_post(keyed, "respond-async"), deadline)
        return Job.read(answer.json())

    def _ranking(self, job: Job, deadline: float) -> Steps[Ranking]:
        events = JobEvents(job, wants_result=True)
        yield from self._wait_until_final(events, deadline)
        if events.result is not None:
            return Ranking.read(events.result)
        return (yield from self._results(job.id, deadline))

    def _wait_until_final(self, events: JobEvents, deadline: float) -> Steps[None]:
        """Wait until the job has a final status. Raises WaitTimedOut."""
        if events.ended:
            return
        if events.on_progress:
            events.on_progress(events.job)
        # Older services have no events of such a job.
        if "events" in events.job.raw:
            yield from self._follow(events, deadline)
        if not events.ended:
            yield from self._poll(events, deadline)

    def _poll(self, events: JobEvents, deadline: float) -> Steps[None]:
        """Ask for the job until its end. Raises WaitTimedOut."""
        while True:
            seconds = self._wait_seconds(events.job, deadline)
            # Poll every second while progress is shown.
            seconds = _whole_seconds(min(seconds, 1 if events.on_progress else POLL_SECONDS))
            started = self._clock()
            path = job_path(events.job.id)
            poll = Call("GET", path, {"Prefer": f"wait={seconds}"}, seconds=seconds + ANSWER_SECONDS)
            events.update(Job.read((yield from self._call(poll, deadline)).json()))
            if events.job.final:
                return
            if events.on_progress:
                events.on_progress(events.job)
            if self._clock() - started < _POLL_PAUSE:
                yield Pause(_POLL_PAUSE)

    def _follow(self, events: JobEvents, deadline: float) -> Steps[None]:
        """Follow the job's events until its end, or until a stream breaks at once. Raises WaitTimedOut.

        A stream that breaks later, as when the service restarts, is followed by another one.
        """
        path = job_path(events.job.id, "/events" if events.wants_result else "/events?results=false")
        while True:
            left = self._wait_seconds(events.job, deadline)
            headers = {"Accept": "text/event-stream", "Prefer": f"wait={max(1, int(min(left, _LONGEST_STREAM)))}"}
            if events.last_id is not None:
                headers["Last-Event-ID"] = events.last_id
            received, started = events.received, self._clock()
            events.begin()
            # The service ends a stream after whole seconds; below one second, the client leaves it.
            seconds = min(SILENCE_SECONDS, left + GRACE_SECONDS if left >= 1 else left)
            stream = Call("GET", path, headers, seconds=seconds, on_chunk=partial(self._feed, events, deadline))
            with suppress(RerankError):
                yield from attempt(stream)
            if events.ended or events.received == received or self._clock() - started < _SHORT_STREAM:
                return

    def _feed(self, events: JobEvents, deadline: float, chunk: bytes) -> bool:
        return events.feed(chunk) or self._clock() > deadline

    def _wait_seconds(self, job: Job, deadline: float) -> float:
        """The seconds until the deadline. Raises WaitTimedOut after it."""
        if (left := deadline - self._clock()) <= 0:
            raise WaitTimedOut(f"the job {job.id} is {job.status}; it continues", job_id=job.id)
        return left

    def _results(self, job_id: str, deadline: float) -> Steps[Ranking]:
        answer = yield from self._call(Call("GET", job_path(job_id, "/results")), deadline)
        return Ranking.read(answer.json())


def _post(request: Request, prefer: str) -> Call:
    headers = {"Content-Type": "application/json", "Prefer": prefer}
    if request.idempotency_key is not None:
        headers["Idempotency-Key"] = request.idempotency_key
    seconds = POLL_SECONDS + ANSWER_SECONDS
    return Call("POST", RERANK_PATH, headers, json.dumps(request.body()).encode(), seconds)


def job_path(job_id: str, suffix: str = "") -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}{suffix}"


def _whole_seconds(seconds: float) -> int:
    return max(1, math.ceil(seconds))
