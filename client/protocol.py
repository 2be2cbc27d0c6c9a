"""The sequence of HTTP calls, pauses and retries of each client operation, without any I/O.

Every operation is a generator: it yields a Call or a Pause, and receives the Call's Answer. The blocking client, the
asynchronous client and the tests execute the same generators.
"""

import json
import math
import random
import time
import uuid
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from urllib.parse import quote

from client.errors import (
    ConnectionFailed,
    JobError,
    Overloaded,
    RerankError,
    Unavailable,
    UnexpectedAnswer,
    WaitTimedOut,
    error_of,
)
from client.records import Job, Model, Ranking, Request

T = TypeVar("T")

RERANK_PATH = "/superset/v1/rerank"
"""The superset's own path: the operator may serve another dialect at the root."""
POLL_SECONDS = 20
"""The length of one long poll, shorter than the timeouts of common proxies."""
_ANSWER_SECONDS = 30.0
"""How long an answer may take beyond the requested wait."""
_GRACE_SECONDS = 2.0
"""How long a call may exceed the caller's timeout, so that an answer sent at the last moment still arrives."""
_CLEANUP_SECONDS = 2.0
_FIRST_PAUSE, _LONGEST_PAUSE, _LONGEST_RETRY_AFTER = 0.5, 8.0, 60.0
_POLL_PAUSE = 0.1
_RETRYABLE = (ConnectionFailed, Overloaded, Unavailable)


@dataclass(frozen=True, slots=True)
class Call:
    """An HTTP call; `seconds` is how long it may take."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    seconds: float = _ANSWER_SECONDS


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait for `seconds` before the next step."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Raises UnexpectedAnswer."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise UnexpectedAnswer(f"the answer is not JSON: {self.body[:200]!r}", status=self.status) from error


Steps = Generator[Call | Pause, Answer | None, T]
"""An operation. The client throws into it the exception that a Call raised: ConnectionFailed, or an interruption."""


class ClientProtocol:
    """The operations of the client. All raise RerankError."""

    def __init__(self, *, retries: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`retries` is how often a call is repeated after a temporary failure, each time after its Retry-After."""
        self._retries = retries
        self._clock = clock

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
            yield from self._wait_until_final(job, deadline)
            return (yield from self._results(job.id, deadline))
        except GeneratorExit:
            raise
        except BaseException:
            if request.idempotency_key is None:
                yield from self._call_once(Call("POST", _path(job.id, "/cancel"), seconds=_CLEANUP_SECONDS))
            raise

    def rerank_as_batch(self, request: Request, timeout_seconds: float) -> Steps[Ranking]:
        """Rank as a job of the batch class. The job continues when the caller stops waiting.

        A job that ended without a ranking is deleted, so that the same idempotency key can be used for another attempt.
        """
        deadline = self._clock() + timeout_seconds
        job = yield from self._submit(request, deadline)
        yield from self._wait_until_final(job, deadline)
        try:
            return (yield from self._results(job.id, deadline))
        except JobError:
            yield from self._call_once(Call("DELETE", _path(job.id), seconds=_CLEANUP_SECONDS))
            raise

    def submit(self, request: Request, timeout_seconds: float) -> Steps[Job]:
        """Submit a job without waiting for it."""
        return (yield from self._submit(request, self._clock() + timeout_seconds))

    def job(self, job_id: str, timeout_seconds: float) -> Steps[Job]:
        """The job's current status. Raises JobNotFound."""
        answer = yield from self._call(Call("GET", _path(job_id)), self._clock() + timeout_seconds)
        return Job.read(answer.json())

    def wait(self, job_id: str, timeout_seconds: float, on_progress: Callable[[Job], None] | None = None) -> Steps[Job]:
        """Wait until the job has a final status; `on_progress` is called about once a second with its current state.

        Raises WaitTimedOut, JobNotFound.
        """
        deadline = self._clock() + timeout_seconds
        answer = yield from self._call(Call("GET", _path(job_id)), deadline)
        return (yield from self._wait_until_final(Job.read(answer.json()), deadline, on_progress))

    def results(self, job_id: str, timeout_seconds: float) -> Steps[Ranking]:
        """The ranking of a succeeded job. Raises JobNotFinished, JobError, JobNotFound."""
        return (yield from self._results(job_id, self._clock() + timeout_seconds))

    def cancel(self, job_id: str, timeout_seconds: float) -> Steps[Job]:
        """Cancel a job. A job that has ended is unchanged. Raises JobNotFound."""
        answer = yield from self._call(Call("POST", _path(job_id, "/cancel")), self._clock() + timeout_seconds)
        return Job.read(answer.json())

    def delete(self, job_id: str, timeout_seconds: float) -> Steps[None]:
        """Delete a job and its result. A running job is canceled first. Raises JobNotFound."""
        yield from self._call(Call("DELETE", _path(job_id)), self._clock() + timeout_seconds)

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

    def _wait_until_final(
        self, job: Job, deadline: float, on_progress: Callable[[Job], None] | None = None
    ) -> Steps[Job]:
        while not job.final:
            if on_progress:
                on_progress(job)
            left = deadline - self._clock()
            if left <= 0:
                raise WaitTimedOut(f"the job {job.id} is {job.status}; it continues", job_id=job.id)
            # Poll every second while progress is shown.
            seconds = _whole_seconds(min(left, 1 if on_progress else POLL_SECONDS))
            started = self._clock()
            poll = Call("GET", _path(job.id), {"Prefer": f"wait={seconds}"}, seconds=seconds + _ANSWER_SECONDS)
            job = Job.read((yield from self._call(poll, deadline)).json())
            if not job.final and self._clock() - started < _POLL_PAUSE:
                yield Pause(_POLL_PAUSE)
        return job

    def _results(self, job_id: str, deadline: float) -> Steps[Ranking]:
        answer = yield from self._call(Call("GET", _path(job_id, "/results")), deadline)
        return Ranking.read(answer.json())

    def _call_once(self, call: Call) -> Steps[None]:
        """Make a call once and ignore its failure."""
        with suppress(RerankError):
            yield call

    def _call(self, call: Call, deadline: float) -> Steps[Answer]:
        """Make the call, and retry temporary failures until the deadline."""
        attempt = 0
        while True:
            left = max(deadline - self._clock(), 0)
            try:
                answer = yield replace(call, seconds=min(call.seconds, left + _GRACE_SECONDS))
                assert answer is not None
                if answer.status < 400:
                    return answer
                error = error_of(answer.status, answer.headers, answer.body)
            except ConnectionFailed as failed:
                error = failed
            pause = self._retry_delay(attempt, error)
            if pause is None or self._clock() + pause > deadline:
                raise error
            yield Pause(pause)
            attempt += 1

    def _retry_delay(self, attempt: int, error: RerankError) -> float | None:
        """Seconds to wait before the next attempt; None when another attempt would not help."""
        if attempt >= self._retries or not isinstance(error, _RETRYABLE):
            return None
        if error.retry_after is not None:
            return error.retry_after if error.retry_after <= _LONGEST_RETRY_AFTER else None
        longest: float = min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE)
        return longest * random.uniform(0.5, 1)


def _post(request: Request, prefer: str) -> Call:
    headers = {"Content-Type": "application/json", "Prefer": prefer}
    if request.idempotency_key is not None:
        headers["Idempotency-Key"] = request.idempotency_key
    seconds = POLL_SECONDS + _ANSWER_SECONDS
    return Call("POST", RERANK_PATH, headers, json.dumps(request.body()).encode(), seconds)


def _path(job_id: str, suffix: str = "") -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}{suffix}"


def _whole_seconds(seconds: float) -> int:
    return max(1, math.ceil(seconds))
