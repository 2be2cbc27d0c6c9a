"""The sequence of HTTP calls, pauses and retries of each operation on jobs and models; see client.calls."""

import json
import math
import uuid
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import quote

from client.calls import ANSWER_SECONDS, CLEANUP_SECONDS, Call, Caller, Pause, Steps
from client.errors import JobError, UnexpectedAnswer, WaitTimedOut
from client.records import Job, Model, Ranking, Request

RERANK_PATH = "/superset/v1/rerank"
"""The superset's own path: the operator may serve another dialect at the root."""
POLL_SECONDS = 20
"""The length of one long poll, shorter than the timeouts of common proxies."""
_POLL_PAUSE = 0.1


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
            yield from self._wait_until_final(job, deadline)
            return (yield from self._results(job.id, deadline))
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
        yield from self._wait_until_final(job, deadline)
        try:
            return (yield from self._results(job.id, deadline))
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
        """Wait until the job has a final status; `on_progress` is called about once a second with its current state.

        Raises WaitTimedOut, JobNotFound.
        """
        deadline = self._clock() + timeout_seconds
        answer = yield from self._call(Call("GET", job_path(job_id)), deadline)
        return (yield from self._wait_until_final(Job.read(answer.json()), deadline, on_progress))

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
            poll = Call("GET", job_path(job.id), {"Prefer": f"wait={seconds}"}, seconds=seconds + ANSWER_SECONDS)
            job = Job.read((yield from self._call(poll, deadline)).json())
            if not job.final and self._clock() - started < _POLL_PAUSE:
                yield Pause(_POLL_PAUSE)
        return job

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
