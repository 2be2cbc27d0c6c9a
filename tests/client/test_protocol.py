"""The calls and pauses of each operation, with prepared answers and a fake clock."""

import json
from typing import Any

import pytest

from client import errors
from client.protocol import RERANK_PATH
from client.records import Request
from tests.client.fake_client import FakeClient, answer, error_answer

REQUEST = Request("panda", ["a", "b"], {"top_n": 1})
RANKING = {"id": "job-1", "model": "m", "results": [{"index": 1, "relevance_score": 0.5}], "usage": {"total_tokens": 3}}


def job(status: str) -> dict[str, Any]:
    done = int(status == "succeeded")
    progress = {"pairs_total": 2, "pairs_done": 2 * done, "shards_total": 1, "shards_done": done}
    return {"id": "job-1", "status": status, "model": "m", "created": 1.0, "progress": progress}


def test_fast_ranking_takes_one_call() -> None:
    client = FakeClient(answer(200, RANKING))
    ranking = client.execute(client.protocol.rerank(REQUEST, 60))
    assert [(row.index, row.score) for row in ranking.rows] == [(1, 0.5)]
    (call,) = client.calls
    assert (call.method, call.path, call.headers["Prefer"]) == ("POST", RERANK_PATH, "wait=20")
    assert isinstance(call.body, bytes)
    assert json.loads(call.body) == {"query": "panda", "documents": ["a", "b"], "top_n": 1}
    assert "Idempotency-Key" not in call.headers


def test_slow_ranking_is_polled_as_a_job() -> None:
    client = FakeClient(
        answer(202, job("queued")), answer(200, job("running")), answer(200, job("succeeded")), answer(200, RANKING)
    )
    assert client.execute(client.protocol.rerank(REQUEST, 60)).id == "job-1"
    assert client.requests[1:] == ["GET /v1/jobs/job-1", "GET /v1/jobs/job-1", "GET /v1/jobs/job-1/results"]
    assert client.pauses == []


def test_polls_that_return_at_once_are_followed_by_a_pause() -> None:
    polls = [answer(200, job("running"))] * 3
    client = FakeClient(*polls, answer(200, job("succeeded")), seconds=0.001)
    client.execute(client.protocol.wait("job-1", 60))
    assert len(client.pauses) == 2


@pytest.mark.parametrize("status", [429, 503])
def test_retry_waits_for_retry_after(status: int) -> None:
    code = {429: "overloaded", 503: "store_unavailable"}[status]
    client = FakeClient(error_answer(status, code, retry_after="7"), answer(200, RANKING))
    client.execute(client.protocol.rerank(REQUEST, 60))
    assert client.pauses == [7.0]


def test_pauses_grow_without_retry_after() -> None:
    failures = [errors.ConnectionFailed("closed")] * 2
    client = FakeClient(*failures, answer(200, RANKING))
    client.execute(client.protocol.rerank(REQUEST, 60))
    first, second = client.pauses
    assert 0.25 <= first <= 0.5 <= second <= 1.0


def test_error_is_raised_after_the_last_retry() -> None:
    client = FakeClient(*[error_answer(503, "model_unavailable", retry_after="1")] * 3)
    with pytest.raises(errors.Unavailable, match="message of model_unavailable"):
        client.execute(client.protocol.rerank(REQUEST, 60))
    assert len(client.calls) == 3


def test_retry_that_would_exceed_the_timeout_is_not_made() -> None:
    client = FakeClient(error_answer(429, "overloaded", retry_after="30"))
    with pytest.raises(errors.Overloaded) as raised:
        client.execute(client.protocol.rerank(REQUEST, 10))
    assert (raised.value.retry_after, client.pauses) == (30.0, [])


@pytest.mark.parametrize("code", ["invalid_request", "unauthorized", "model_not_found", "internal_error"])
def test_permanent_error_is_not_retried(code: str) -> None:
    client = FakeClient(error_answer(400, code))
    with pytest.raises(errors.RerankError, match=f"message of {code}"):
        client.execute(client.protocol.rerank(REQUEST, 60))
    assert len(client.calls) == 1


@pytest.mark.parametrize("failures", [[KeyboardInterrupt()], [errors.ConnectionFailed("closed")] * 3])
def test_failure_while_waiting_cancels_the_job(failures: list[BaseException]) -> None:
    client = FakeClient(answer(202, job("queued")), *failures, answer(200, job("canceled")))
    with pytest.raises(type(failures[0])):
        client.execute(client.protocol.rerank(REQUEST, 60))
    assert client.requests[-1] == "POST /v1/jobs/job-1/cancel"


def test_timeout_cancels_the_job_and_reports_its_id() -> None:
    client = FakeClient(
        answer(202, job("queued")), answer(200, job("running")), answer(200, job("canceled")), seconds=4
    )
    with pytest.raises(errors.WaitTimedOut) as raised:
        client.execute(client.protocol.rerank(REQUEST, 5))
    assert raised.value.job_id == "job-1"
    assert client.requests[-1] == "POST /v1/jobs/job-1/cancel"


def test_job_with_an_idempotency_key_is_not_canceled() -> None:
    client = FakeClient(answer(202, job("queued")), KeyboardInterrupt())
    keyed = Request("panda", ["a"], idempotency_key="mine")
    with pytest.raises(KeyboardInterrupt):
        client.execute(client.protocol.rerank(keyed, 60))
    assert client.requests == [f"POST {RERANK_PATH}", "GET /v1/jobs/job-1"]
    assert client.calls[0].headers["Idempotency-Key"] == "mine"


def test_retried_submission_has_the_same_idempotency_key() -> None:
    client = FakeClient(errors.ConnectionFailed("closed"), answer(202, job("queued")))
    assert client.execute(client.protocol.submit(REQUEST, 60)).status == "queued"
    first, second = (call.headers for call in client.calls)
    assert first["Idempotency-Key"] == second["Idempotency-Key"]
    assert first["Prefer"] == "respond-async"


def test_failed_batch_job_is_deleted() -> None:
    client = FakeClient(
        answer(202, job("queued")), answer(200, job("failed")), error_answer(500, "scoring_failed"), answer(204, None)
    )
    with pytest.raises(errors.ScoringFailed):
        client.execute(client.protocol.rerank_as_batch(REQUEST, 60))
    assert client.requests[-1] == "DELETE /v1/jobs/job-1"


def test_job_id_is_quoted_in_the_path() -> None:
    client = FakeClient(error_answer(404, "job_not_found"))
    with pytest.raises(errors.JobNotFound):
        client.execute(client.protocol.job("../../v1/models?x=", 60))
    assert client.requests == ["GET /v1/jobs/..%2F..%2Fv1%2Fmodels%3Fx%3D"]


@pytest.mark.parametrize("data", [[], {"hello": "world"}, None, {"results": [{}]}])
def test_unexpected_json_raises_unexpected_answer(data: Any) -> None:
    client = FakeClient(answer(200, data))
    with pytest.raises(errors.UnexpectedAnswer):
        client.execute(client.protocol.rerank(REQUEST, 60))
