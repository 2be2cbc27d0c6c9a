"""Both clients with a real service."""

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from client import Request, errors
from client.errors import TextTooLong
from infra.local.stack import Stack
from tests.client.conftest import SLOW_SECONDS, ClientClass
from tests.stacks import PANDA

QUERY: str = PANDA["query"]  # type: ignore[assignment]
DOCUMENTS: list[str] = PANDA["documents"]  # type: ignore[assignment]


@pytest.fixture
def client(client_class: ClientClass, service: Stack) -> Iterator[Any]:
    with client_class(service.url) as opened:
        yield opened


@pytest.fixture
def slow_client(client_class: ClientClass, slow_service: Stack) -> Iterator[Any]:
    with client_class(slow_service.url) as opened:
        yield opened


def job_statuses(stack: Stack, ids: set[str]) -> set[str]:
    return {httpx.get(f"{stack.url}/v1/jobs/{job_id}").json()["status"] for job_id in ids}


def test_documents_are_ranked(client: Any) -> None:
    ranking = client.rerank(QUERY, DOCUMENTS, top_n=2)
    assert [(row.index, row.text) for row in ranking.rows] == [(2, DOCUMENTS[2]), (1, DOCUMENTS[1])]
    assert ranking.rows[0].score > ranking.rows[1].score
    assert (ranking.model, ranking.raw["object"]) == ("all-MiniLM-L6-v2", "rerank")


def test_options_and_document_objects_are_sent(client: Any) -> None:
    documents = [{"title": "bear", "id": 1}, {"title": "panda", "id": 2}, {"title": "", "id": 3}]
    ranking = client.rerank("panda", documents, rank_fields=["title"], priority=5)
    assert ranking.rows[0].document["id"] == 2
    truncated = client.rerank("panda", ["", "panda and more"], max_tokens_per_doc=1)
    assert [(row.truncated, row.error) for row in truncated.rows] == [(True, None), (False, "the document is empty")]


def test_text_that_is_too_long_is_an_error_without_truncation(client: Any) -> None:
    documents = ["more and panda", "panda"]
    end = client.rerank("panda", documents, max_tokens_per_doc=1, truncate="START")
    assert [(row.index, row.truncated) for row in end.rows] == [(0, True), (1, False)]
    with pytest.raises(TextTooLong) as caught:
        client.rerank("panda", documents, max_tokens_per_doc=1, truncate="NONE")
    assert (caught.value.param, caught.value.status) == ("documents[0]", 400)


def test_job_is_submitted_awaited_read_and_deleted(client: Any) -> None:
    job = client.submit(QUERY, DOCUMENTS)
    assert job.pairs_total == 3
    ended = client.wait(job.id)
    assert (ended.status, ended.final, ended.shards_done) == ("succeeded", True, 1)
    assert client.job(job.id).status == "succeeded"
    assert client.cancel(job.id).status == "succeeded"
    assert [row.index for row in client.results(job.id).rows] == [2, 1, 0]
    client.delete(job.id)
    with pytest.raises(errors.JobNotFound, match="there is no job"):
        client.job(job.id)


def test_models_are_listed(client: Any) -> None:
    (model,) = client.models()
    assert (model.id, model.workers) == ("all-MiniLM-L6-v2", 1)


def test_errors_have_a_class_and_the_message_of_the_service(client: Any) -> None:
    with pytest.raises(errors.ModelNotFound, match="model 'nope' is not served here"):
        client.rerank(QUERY, DOCUMENTS, model="nope")
    with pytest.raises(errors.InvalidRequest, match="documents are required") as raised:
        client.rerank(QUERY, [])
    assert (raised.value.status, raised.value.param) == (400, "documents")
    assert raised.value.request_id


def test_idempotency_key_identifies_one_job_and_one_body(client: Any, client_class: ClientClass) -> None:
    key = f"{client_class.__name__}-key"
    first, again = [client.rerank(QUERY, DOCUMENTS, idempotency_key=key).id for _ in range(2)]
    assert first == again
    with pytest.raises(errors.IdempotencyConflict):
        client.rerank("another query", DOCUMENTS, idempotency_key=key)


def test_each_of_many_requests_gets_its_own_outcome(client: Any) -> None:
    requests = [
        Request(f"word{number}", [f"word{number + 1}", f"word{number}"], {"top_n": 1}, custom_id=str(number))
        for number in range(40)
    ]
    requests[7] = Request("word7", ["word7"], {"model": "nope"}, custom_id="7")
    outcomes = sorted(client.rerank_many(iter(requests), concurrency=8), key=lambda outcome: outcome.position)
    assert [outcome.request.custom_id for outcome in outcomes] == [str(number) for number in range(40)]
    assert isinstance(outcomes[7].error, errors.ModelNotFound)
    texts = [outcome.ranking.rows[0].text for outcome in outcomes if outcome.ranking]
    assert texts == [f"word{number}" for number in range(40) if number != 7]


def test_concurrency_limits_the_requests_in_progress(slow_client: Any) -> None:
    read_at: list[float] = []

    def requests() -> Iterator[Request]:
        for number in range(4):
            read_at.append(time.monotonic())
            yield Request(f"word{number}", ["word"])

    outcomes = list(slow_client.rerank_many(requests(), concurrency=2))
    assert all(outcome.ranking for outcome in outcomes)
    assert read_at[1] - read_at[0] < SLOW_SECONDS / 2 < read_at[2] - read_at[1]


def test_exception_of_the_requests_iterable_is_raised(client: Any) -> None:
    def requests() -> Iterator[Request]:
        yield Request(QUERY, DOCUMENTS)
        raise RuntimeError("cannot read the file")

    with pytest.raises(RuntimeError, match="cannot read the file"):
        list(client.rerank_many(requests()))


def test_ranking_can_take_longer_than_the_service_waits(slow_client: Any) -> None:
    assert slow_client.rerank("slow panda", DOCUMENTS).rows[0].index == 2


def test_timeout_cancels_the_job_unless_it_has_an_idempotency_key(
    slow_client: Any, slow_service: Stack, client_class: ClientClass
) -> None:
    with pytest.raises(errors.WaitTimedOut) as raised:
        slow_client.rerank("impatient", DOCUMENTS, timeout_seconds=SLOW_SECONDS / 3)
    assert job_statuses(slow_service, {raised.value.job_id or ""}) == {"canceled"}

    key = f"{client_class.__name__}-patient"
    with pytest.raises(errors.WaitTimedOut):
        slow_client.rerank("patient", DOCUMENTS, timeout_seconds=SLOW_SECONDS / 3, idempotency_key=key)
    assert len(slow_client.rerank("patient", DOCUMENTS, idempotency_key=key).rows) == 3


def test_wait_reports_progress(slow_client: Any) -> None:
    seen: list[str] = []
    job = slow_client.submit("progress", DOCUMENTS)
    assert slow_client.wait(job.id, on_progress=lambda job: seen.append(job.status)).status == "succeeded"
    assert set(seen) <= {"queued", "running"}
    assert seen


def test_each_of_many_jobs_gets_its_own_outcome_in_order(slow_client: Any) -> None:
    succeeded, canceled = (slow_client.submit(query, DOCUMENTS).id for query in ("many", "unwanted"))
    slow_client.cancel(canceled)
    ids = [succeeded, "job-unknown", canceled, succeeded]
    outcomes = slow_client.wait_many(iter(ids), concurrency=2)
    assert [(outcome.position, outcome.job_id) for outcome in outcomes] == list(enumerate(ids))
    assert [outcome.job and outcome.job.status for outcome in outcomes] == ["succeeded", None, "canceled", "succeeded"]
    assert [type(outcome.error) for outcome in outcomes if outcome.error] == [errors.JobNotFound]
    assert slow_client.wait_many([]) == []
    with pytest.raises(ValueError, match="concurrency must be at least 1"):
        slow_client.wait_many(ids, concurrency=0)


def test_timeout_of_many_jobs_is_that_of_the_whole_call(slow_client: Any) -> None:
    slow, ended = (slow_client.submit(query, DOCUMENTS).id for query in ("slow", "ended"))
    slow_client.cancel(ended)
    started = time.monotonic()
    outcomes = slow_client.wait_many([slow, slow, ended], concurrency=1, timeout_seconds=SLOW_SECONDS / 4)
    assert time.monotonic() - started < SLOW_SECONDS
    assert [type(outcome.error) for outcome in outcomes] == [errors.WaitTimedOut, errors.WaitTimedOut, type(None)]
    assert slow_client.wait(slow).status == "succeeded"


def test_results_of_a_canceled_job_raise_an_error(slow_client: Any) -> None:
    job = slow_client.submit("unwanted", DOCUMENTS)
    assert slow_client.cancel(job.id).status == "canceled"
    assert slow_client.wait(job.id).status == "canceled"
    with pytest.raises(errors.JobCanceled):
        slow_client.results(job.id)


def test_unreachable_service_raises_connection_failed(client_class: ClientClass) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        with (
            client_class(url, retries=1) as client,
            pytest.raises(errors.ConnectionFailed, match=f"no answer from {url}"),
        ):
            client.models()


def test_service_that_starts_later_is_reached_by_a_retry(client_class: ClientClass, service: Stack) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    starter = threading.Timer(0.6, relay, args=(port, service.port))
    starter.start()
    with client_class(f"http://127.0.0.1:{port}") as client:
        assert len(client.models()) == 1
    starter.join(5)


def relay(port: int, behind: int) -> None:
    """Forward one connection in both directions until it is closed."""
    with socket.create_server(("127.0.0.1", port)) as server:
        server.settimeout(5)
        near, _ = server.accept()
        with near, socket.create_connection(("127.0.0.1", behind)) as far:
            back = threading.Thread(target=forward, args=(far, near))
            back.start()
            forward(near, far)
            back.join(5)


def forward(source: socket.socket, target: socket.socket) -> None:
    source.settimeout(5)
    while data := source.recv(65536):
        target.sendall(data)
    target.shutdown(socket.SHUT_WR)
