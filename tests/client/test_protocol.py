"""What is said in which order, with answers made up and a clock that only pauses move."""

import json
from collections.abc import Iterator
from typing import Any, TypeVar

import pytest

from client import errors
from client.protocol import RERANK_PATH, Answer, Call, ClientProtocol, Pause, Steps
from client.records import Request

T = TypeVar("T")

REQUEST = Request("panda", ["a", "b"], {"top_n": 1})
RANKING = {"id": "job-1", "model": "m", "results": [{"index": 1, "relevance_score": 0.5}], "usage": {"total_tokens": 3}}


def job(state: str) -> dict[str, Any]:
    done = int(state == "succeeded")
    progress = {"pairs_total": 2, "pairs_done": 2 * done, "shards_total": 1, "shards_done": done}
    return {"id": "job-1", "status": state, "model": "m", "created": 1.0, "progress": progress}


def answer(status: int, said: Any, **headers: str) -> Answer:
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, json.dumps(said).encode())


def refusal(status: int, code: str, **headers: str) -> Answer:
    return answer(status, {"error": {"type": code, "message": f"it is {code}"}}, **headers)


class Listener:
    """Carries out an operation with the answers given, each taking `seconds`; keeps what it was asked."""

    def __init__(self, *answers: Answer | BaseException, seconds: float = 0.2) -> None:
        self._answers: Iterator[Answer | BaseException] = iter(answers)
        self._seconds = seconds
        self.now = 0.0
        self.calls: list[Call] = []
        self.pauses: list[float] = []
        self.protocol = ClientProtocol(retries=2, clock=lambda: self.now)

    def carry_out(self, steps: Steps[T]) -> T:
        given: Answer | BaseException | None = None
        while True:
            try:
                step = steps.throw(given) if isinstance(given, BaseException) else steps.send(given)
            except StopIteration as end:
                result: T = end.value
                return result
            if isinstance(step, Pause):
                self.now += step.seconds
                self.pauses.append(step.seconds)
                given = None
            else:
                self.now += self._seconds
                self.calls.append(step)
                given = next(self._answers)

    @property
    def said(self) -> list[str]:
        return [f"{call.method} {call.path}" for call in self.calls]


def test_a_ranking_that_comes_in_time_takes_one_call() -> None:
    listener = Listener(answer(200, RANKING))
    ranking = listener.carry_out(listener.protocol.rerank(REQUEST, 60))
    assert [(row.index, row.score) for row in ranking.rows] == [(1, 0.5)]
    (call,) = listener.calls
    assert (call.method, call.path, call.headers["Prefer"]) == ("POST", RERANK_PATH, "wait=20")
    assert json.loads(call.body or b"") == {"query": "panda", "documents": ["a", "b"], "top_n": 1}
    assert "Idempotency-Key" not in call.headers


def test_one_that_takes_longer_is_waited_for_as_a_job() -> None:
    listener = Listener(
        answer(202, job("queued")), answer(200, job("running")), answer(200, job("succeeded")), answer(200, RANKING)
    )
    assert listener.carry_out(listener.protocol.rerank(REQUEST, 60)).id == "job-1"
    assert listener.said[1:] == ["GET /v1/jobs/job-1", "GET /v1/jobs/job-1", "GET /v1/jobs/job-1/results"]
    assert listener.pauses == []


def test_a_service_that_does_not_wait_is_not_asked_without_pause() -> None:
    polls = [answer(200, job("running"))] * 3
    listener = Listener(*polls, answer(200, job("succeeded")), seconds=0.001)
    listener.carry_out(listener.protocol.wait("job-1", 60))
    assert len(listener.pauses) == 2


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(status: int) -> None:
    code = {429: "overloaded", 503: "store_unavailable"}[status]
    listener = Listener(refusal(status, code, retry_after="7"), answer(200, RANKING))
    listener.carry_out(listener.protocol.rerank(REQUEST, 60))
    assert listener.pauses == [7.0]


def test_without_retry_after_the_pauses_grow() -> None:
    failures = [errors.ConnectionFailed("gone"), errors.ConnectionFailed("gone")]
    listener = Listener(*failures, answer(200, RANKING))
    listener.carry_out(listener.protocol.rerank(REQUEST, 60))
    first, second = listener.pauses
    assert 0.25 <= first <= 0.5 <= second <= 1.0


def test_after_so_many_retries_the_error_is_the_callers() -> None:
    listener = Listener(*[refusal(503, "model_unavailable", retry_after="1")] * 3)
    with pytest.raises(errors.Unavailable, match="it is model_unavailable"):
        listener.carry_out(listener.protocol.rerank(REQUEST, 60))
    assert len(listener.calls) == 3


def test_no_pause_goes_beyond_the_callers_time() -> None:
    listener = Listener(refusal(429, "overloaded", retry_after="30"))
    with pytest.raises(errors.Overloaded) as raised:
        listener.carry_out(listener.protocol.rerank(REQUEST, 10))
    assert (raised.value.retry_after, listener.pauses) == (30.0, [])


@pytest.mark.parametrize("code", ["invalid_request", "unauthorized", "model_not_found", "internal_error"])
def test_what_another_try_would_not_mend_is_raised_at_once(code: str) -> None:
    listener = Listener(refusal(400, code))
    with pytest.raises(errors.RerankError, match=f"it is {code}"):
        listener.carry_out(listener.protocol.rerank(REQUEST, 60))
    assert len(listener.calls) == 1


@pytest.mark.parametrize("trouble", [[KeyboardInterrupt()], [errors.ConnectionFailed("gone for good")] * 3])
def test_who_leaves_cancels_the_job(trouble: list[BaseException]) -> None:
    listener = Listener(answer(202, job("queued")), *trouble, answer(200, job("canceled")))
    with pytest.raises(type(trouble[0])):
        listener.carry_out(listener.protocol.rerank(REQUEST, 60))
    assert listener.said[-1] == "POST /v1/jobs/job-1/cancel"


def test_whose_time_is_up_cancels_the_job_and_hears_its_id() -> None:
    listener = Listener(
        answer(202, job("queued")), answer(200, job("running")), answer(200, job("canceled")), seconds=4
    )
    with pytest.raises(errors.WaitTimedOut) as raised:
        listener.carry_out(listener.protocol.rerank(REQUEST, 5))
    assert raised.value.job_id == "job-1"
    assert listener.said[-1] == "POST /v1/jobs/job-1/cancel"


def test_who_has_a_key_leaves_the_job_to_come_back_for() -> None:
    listener = Listener(answer(202, job("queued")), KeyboardInterrupt())
    keyed = Request("panda", ["a"], idempotency_key="mine")
    with pytest.raises(KeyboardInterrupt):
        listener.carry_out(listener.protocol.rerank(keyed, 60))
    assert listener.said == [f"POST {RERANK_PATH}", "GET /v1/jobs/job-1"]
    assert listener.calls[0].headers["Idempotency-Key"] == "mine"


def test_a_submission_that_is_tried_again_is_the_same_job() -> None:
    listener = Listener(errors.ConnectionFailed("gone"), answer(202, job("queued")))
    assert listener.carry_out(listener.protocol.submit(REQUEST, 60)).status == "queued"
    first, second = (call.headers for call in listener.calls)
    assert first["Idempotency-Key"] == second["Idempotency-Key"]
    assert first["Prefer"] == "respond-async"


def test_batch_work_that_failed_makes_room_for_another_attempt() -> None:
    listener = Listener(
        answer(202, job("queued")), answer(200, job("failed")), refusal(500, "scoring_failed"), answer(204, None)
    )
    with pytest.raises(errors.ScoringFailed):
        listener.carry_out(listener.protocol.rerank_as_batch(REQUEST, 60))
    assert listener.said[-1] == "DELETE /v1/jobs/job-1"


def test_an_id_cannot_lead_elsewhere() -> None:
    listener = Listener(refusal(404, "job_not_found"))
    with pytest.raises(errors.JobNotFound):
        listener.carry_out(listener.protocol.job("../../v1/models?x=", 60))
    assert listener.said == ["GET /v1/jobs/..%2F..%2Fv1%2Fmodels%3Fx%3D"]


@pytest.mark.parametrize("said", [[], {"hello": "world"}, None, {"results": [{}]}])
def test_a_strangers_answer_is_no_ranking(said: Any) -> None:
    listener = Listener(answer(200, said))
    with pytest.raises(errors.UnexpectedAnswer):
        listener.carry_out(listener.protocol.rerank(REQUEST, 60))
