"""Both clients against a real service."""

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from client import Request, errors
from infra.local.stack import Stack
from tests.client.conftest import SLOW_SECONDS, Opener
from tests.stacks import PANDA

QUERY: str = PANDA["query"]  # type: ignore[assignment]
DOCUMENTS: list[str] = PANDA["documents"]  # type: ignore[assignment]


@pytest.fixture
def client(opener: Opener, service: Stack) -> Iterator[Any]:
    with opener(service.url) as opened:
        yield opened


@pytest.fixture
def slow_client(opener: Opener, slow_service: Stack) -> Iterator[Any]:
    with opener(slow_service.url) as opened:
        yield opened


def states_of_all(stack: Stack, ids: set[str]) -> set[str]:
    return {httpx.get(f"{stack.url}/v1/jobs/{job_id}").json()["status"] for job_id in ids}


def test_documents_come_back_in_their_order(client: Any) -> None:
    ranking = client.rerank(QUERY, DOCUMENTS, top_n=2)
    assert [(row.index, row.text) for row in ranking.rows] == [(2, DOCUMENTS[2]), (1, DOCUMENTS[1])]
    assert ranking.rows[0].score > ranking.rows[1].score
    assert (ranking.model, ranking.raw["object"]) == ("all-MiniLM-L6-v2", "rerank")


def test_options_and_objects_reach_the_service(client: Any) -> None:
    documents = [{"title": "bear", "id": 1}, {"title": "panda", "id": 2}, {"title": "", "id": 3}]
    ranking = client.rerank("panda", documents, rank_fields=["title"], priority=5)
    assert ranking.rows[0].document["id"] == 2
    cut = client.rerank("panda", ["", "panda and more"], max_tokens_per_doc=1)
    assert [(row.truncated, row.error) for row in cut.rows] == [(True, None), (False, "the document is empty")]


def test_a_job_is_submitted_waited_for_read_and_deleted(client: Any) -> None:
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


def test_errors_are_typed_and_say_what_the_service_said(client: Any) -> None:
    with pytest.raises(errors.ModelNotFound, match="model 'nope' is not served here"):
        client.rerank(QUERY, DOCUMENTS, model="nope")
    with pytest.raises(errors.InvalidRequest, match="documents are required") as raised:
        client.rerank(QUERY, [])
    assert (raised.value.status, raised.value.param) == (400, "documents")
    assert raised.value.request_id


def test_the_same_key_is_the_same_job_and_no_other_body(client: Any, opener: Opener) -> None:
    key = f"{opener.__name__}-key"
    first, again = [client.rerank(QUERY, DOCUMENTS, idempotency_key=key).id for _ in range(2)]
    assert first == again
    with pytest.raises(errors.IdempotencyConflict):
        client.rerank("another query", DOCUMENTS, idempotency_key=key)


def test_many_requests_each_get_their_own_answer(client: Any) -> None:
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


def test_no_more_than_so_many_are_asked_at_once(slow_client: Any) -> None:
    taken: list[float] = []

    def requests() -> Iterator[Request]:
        for number in range(4):
            taken.append(time.monotonic())
            yield Request(f"word{number}", ["word"])

    outcomes = list(slow_client.rerank_many(requests(), concurrency=2))
    assert all(outcome.ranking for outcome in outcomes)
    assert taken[1] - taken[0] < SLOW_SECONDS / 2 < taken[2] - taken[1]


def test_what_the_requests_raise_is_raised(client: Any) -> None:
    def requests() -> Iterator[Request]:
        yield Request(QUERY, DOCUMENTS)
        raise RuntimeError("the file is gone")

    with pytest.raises(RuntimeError, match="the file is gone"):
        list(client.rerank_many(requests()))


def test_a_ranking_that_takes_longer_than_the_service_waits_is_waited_for(slow_client: Any) -> None:
    assert slow_client.rerank("slow panda", DOCUMENTS).rows[0].index == 2


def test_past_the_callers_time_the_job_is_canceled_unless_there_is_a_key(
    slow_client: Any, slow_service: Stack, opener: Opener
) -> None:
    with pytest.raises(errors.WaitTimedOut) as raised:
        slow_client.rerank("impatient", DOCUMENTS, timeout_seconds=SLOW_SECONDS / 3)
    assert states_of_all(slow_service, {raised.value.job_id or ""}) == {"canceled"}

    key = f"{opener.__name__}-patient"
    with pytest.raises(errors.WaitTimedOut):
        slow_client.rerank("patient", DOCUMENTS, timeout_seconds=SLOW_SECONDS / 3, idempotency_key=key)
    assert len(slow_client.rerank("patient", DOCUMENTS, idempotency_key=key).rows) == 3


def test_while_waiting_it_tells_how_the_job_stands(slow_client: Any) -> None:
    seen: list[str] = []
    job = slow_client.submit("told", DOCUMENTS)
    assert slow_client.wait(job.id, on_progress=lambda job: seen.append(job.status)).status == "succeeded"
    assert set(seen) <= {"queued", "running"}
    assert seen


def test_a_job_that_is_canceled_meanwhile_is_an_error(slow_client: Any) -> None:
    job = slow_client.submit("unwanted", DOCUMENTS)
    assert slow_client.cancel(job.id).status == "canceled"
    assert slow_client.wait(job.id).status == "canceled"
    with pytest.raises(errors.JobCanceled):
        slow_client.results(job.id)


def test_nobody_there_is_one_clear_error(opener: Opener) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        with opener(url, retries=1) as client, pytest.raises(errors.ConnectionFailed, match=f"no answer from {url}"):
            client.models()


def test_a_service_that_starts_meanwhile_is_found_by_trying_again(opener: Opener, service: Stack) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    starter = threading.Timer(0.6, relay, args=(port, service.port))
    starter.start()
    with opener(f"http://127.0.0.1:{port}") as client:
        assert len(client.models()) == 1
    starter.join(5)


def relay(port: int, behind: int) -> None:
    """Passes one connection through, both ways, until it ends."""
    with socket.create_server(("127.0.0.1", port)) as server:
        server.settimeout(5)
        near, _ = server.accept()
        with near, socket.create_connection(("127.0.0.1", behind)) as far:
            back = threading.Thread(target=pump, args=(far, near))
            back.start()
            pump(near, far)
            back.join(5)


def pump(source: socket.socket, target: socket.socket) -> None:
    source.settimeout(5)
    while data := source.recv(65536):
        target.sendall(data)
    target.shutdown(socket.SHUT_WR)
