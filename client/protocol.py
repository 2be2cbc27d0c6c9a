"""What is said to the service, in which order, and when it is said again: the logic of both clients.

Every operation is a generator of steps: it hands out a Call or a Pause and is given the Call's Answer. It knows no
transport and never waits by itself, so that the blocking client, the asynchronous one and a test carry out the same.
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
"""Whatever dialect the operator chose for the root, here it is the one that `records` reads."""
POLL_SECONDS = 20
"""One long poll: short enough for any proxy on the way."""
_ANSWER_SECONDS = 30.0
"""How long an answer may take beyond what it was asked to wait."""
_GRACE_SECONDS = 2.0
"""What a call may take beyond the caller's time: the service, asked to answer by then, is heard."""
_LET_GO_SECONDS = 2.0
_FIRST_PAUSE, _LONGEST_PAUSE, _LONGEST_RETRY_AFTER = 0.5, 8.0, 60.0
_POLL_PAUSE = 0.1
_AGAIN = (ConnectionFailed, Overloaded, Unavailable)


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
    """Nothing to do for so long."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; the headers' names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Raises UnexpectedAnswer."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise UnexpectedAnswer(f"the answer is no JSON: {self.body[:200]!r}", status=self.status) from error


Steps = Generator[Call | Pause, Answer | None, T]
"""Whoever carries them out throws into them what a Call raised: ConnectionFailed, or an interruption."""


class ClientProtocol:
    """The operations. All raise RerankError."""

    def __init__(self, *, retries: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`retries`: how often a call that failed for the moment is made again, no sooner than Retry-After says."""
        self._retries = retries
        self._clock = clock

    def rerank(self, request: Request, timeout_seconds: float) -> Steps[Ranking]:
        """Wait for the ranking. Raises WaitTimedOut.

        Who leaves early, in time or by interruption, cancels the job; unless it has a key to come back with.
        """
        deadline = self._clock() + timeout_seconds
        answer = yield from self._ask(_post(request, f"wait={_whole(min(timeout_seconds, POLL_SECONDS))}"), deadline)
        if answer.status != 202:
            return Ranking.read(answer.json())
        job = Job.read(answer.json())
        try:
            yield from self._until_final(job, deadline)
            return (yield from self._results(job.id, deadline))
        except GeneratorExit:
            raise
        except BaseException:
            if request.idempotency_key is None:
                yield from self._try(Call("POST", _path(job.id, "/cancel"), seconds=_LET_GO_SECONDS))
            raise

    def rerank_behind(self, request: Request, timeout_seconds: float) -> Steps[Ranking]:
        """The same as batch work, which gives way to callers that wait. The job goes on when the caller leaves.

        One that ended without a ranking is removed, so that the same key stands for another attempt.
        """
        deadline = self._clock() + timeout_seconds
        job = yield from self._submit(request, deadline)
        yield from self._until_final(job, deadline)
        try:
            return (yield from self._results(job.id, deadline))
        except JobError:
            yield from self._try(Call("DELETE", _path(job.id), seconds=_LET_GO_SECONDS))
            raise

    def submit(self, request: Request, timeout_seconds: float) -> Steps[Job]:
        """Have a job, and do not wait for it."""
        return (yield from self._submit(request, self._clock() + timeout_seconds))

    def job(self, job_id: str, timeout_seconds: float) -> Steps[Job]:
        """How it stands. Raises JobNotFound."""
        answer = yield from self._ask(Call("GET", _path(job_id)), self._clock() + timeout_seconds)
        return Job.read(answer.json())

    def wait(self, job_id: str, timeout_seconds: float, heard: Callable[[Job], None] | None = None) -> Steps[Job]:
        """The job once it has ended, however it ended; `heard` is told now and then how it stands.

        Raises WaitTimedOut, JobNotFound.
        """
        deadline = self._clock() + timeout_seconds
        answer = yield from self._ask(Call("GET", _path(job_id)), deadline)
        return (yield from self._until_final(Job.read(answer.json()), deadline, heard))

    def results(self, job_id: str, timeout_seconds: float) -> Steps[Ranking]:
        """The ranking of a job that succeeded. Raises JobNotFinished, JobError, JobNotFound."""
        return (yield from self._results(job_id, self._clock() + timeout_seconds))

    def cancel(self, job_id: str, timeout_seconds: float) -> Steps[Job]:
        """Cancel it; one that has ended stays as it is. Raises JobNotFound."""
        answer = yield from self._ask(Call("POST", _path(job_id, "/cancel")), self._clock() + timeout_seconds)
        return Job.read(answer.json())

    def delete(self, job_id: str, timeout_seconds: float) -> Steps[None]:
        """Remove it and its result, canceling it first. Raises JobNotFound."""
        yield from self._ask(Call("DELETE", _path(job_id)), self._clock() + timeout_seconds)

    def models(self, timeout_seconds: float) -> Steps[list[Model]]:
        """What is served, the default first."""
        said = (yield from self._ask(Call("GET", "/v1/models"), self._clock() + timeout_seconds)).json()
        if not isinstance(said, dict) or not isinstance(said.get("data"), list):
            raise UnexpectedAnswer(f"this is no list of models: {str(said)[:200]}")
        return [Model.read(model) for model in said["data"]]

    def _submit(self, request: Request, deadline: float) -> Steps[Job]:
        # With a key, so that a call whose answer was lost can be made again.
        keyed = replace(request, idempotency_key=request.idempotency_key or uuid.uuid4().hex)
        answer = yield from self._ask(_post(keyed, "respond-async"), deadline)
        return Job.read(answer.json())

    def _until_final(self, job: Job, deadline: float, heard: Callable[[Job], None] | None = None) -> Steps[Job]:
        while not job.final:
            if heard:
                heard(job)
            left = deadline - self._clock()
            if left <= 0:
                raise WaitTimedOut(f"the job {job.id} is {job.status}; it goes on", job_id=job.id)
            # Whoever watches wants to see it move.
            seconds = _whole(min(left, 1 if heard else POLL_SECONDS))
            asked = self._clock()
            poll = Call("GET", _path(job.id), {"Prefer": f"wait={seconds}"}, seconds=seconds + _ANSWER_SECONDS)
            job = Job.read((yield from self._ask(poll, deadline)).json())
            if not job.final and self._clock() - asked < _POLL_PAUSE:
                yield Pause(_POLL_PAUSE)
        return job

    def _results(self, job_id: str, deadline: float) -> Steps[Ranking]:
        answer = yield from self._ask(Call("GET", _path(job_id, "/results")), deadline)
        return Ranking.read(answer.json())

    def _try(self, call: Call) -> Steps[None]:
        """Make a call that is not worth a second trouble."""
        with suppress(RerankError):
            yield call

    def _ask(self, call: Call, deadline: float) -> Steps[Answer]:
        """Make the call, and make it again while that may help and there is time."""
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
            pause = self._pause_before(attempt, error)
            if pause is None or self._clock() + pause > deadline:
                raise error
            yield Pause(pause)
            attempt += 1

    def _pause_before(self, attempt: int, error: RerankError) -> float | None:
        """How long to wait before another attempt; None when it would be of no use."""
        if attempt >= self._retries or not isinstance(error, _AGAIN):
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


def _path(job_id: str, below: str = "") -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}{below}"


def _whole(seconds: float) -> int:
    return max(1, math.ceil(seconds))
