"""Requests that forbid truncation, from the HTTP call to the worker that refuses a text and back."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from infra.local.stack import Stack
from tests.stacks import client_of, running

LIMIT = 4
LONG = "one two three four panda"
BODY: dict[str, Any] = {
    "query": "panda",
    "documents": ["a panda", LONG],
    "truncate": "NONE",
    "max_tokens_per_doc": LIMIT,
}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """A stack whose shards have few pairs."""
    with running(environment={"RERANKQ_SHARD_TOKENS": "40"}) as started:
        yield started


@pytest.fixture
def client(stack: Stack) -> Iterator[httpx.Client]:
    with client_of(stack) as opened:
        yield opened


def assert_too_long(response: httpx.Response, document: int) -> None:
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert (error["type"], error["param"]) == ("text_too_long", f"documents[{document}]")
    assert f"documents[{document}]: 5 tokens" in error["message"]
    assert f"max_tokens_per_doc is {LIMIT}" in error["message"]


def test_a_long_document_refuses_the_request(client: httpx.Client) -> None:
    assert_too_long(client.post("/v1/rerank", json=BODY), 1)


def test_a_long_document_in_any_shard_refuses_the_request_and_is_named(client: httpx.Client) -> None:
    documents = [f"number {number}" for number in range(60)]
    documents[47] = LONG
    job = client.post("/v1/rerank", json=BODY | {"documents": documents}, headers={"Prefer": "respond-async"}).json()
    assert job["progress"]["shards_total"] > 5
    assert_too_long(client.post("/v1/rerank", json=BODY | {"documents": documents}), 47)


def test_known_documents_do_not_change_the_name_of_the_long_one(client: httpx.Client) -> None:
    known = {"documents": ["a panda", "a bear"]}
    client.post("/v1/rerank", json=BODY | known).raise_for_status()
    again = client.post("/v1/rerank", json=BODY | {"documents": ["a panda", "a bear", "new", "a bear", LONG]})
    assert_too_long(again, 4)


def test_a_job_fails_with_the_same_error(client: httpx.Client) -> None:
    accepted = client.post("/v1/rerank", json=BODY, headers={"Prefer": "respond-async"})
    job = client.get(accepted.headers["location"], headers={"Prefer": "wait=20"}).json()
    assert (job["status"], job["error"]["type"]) == ("failed", "text_too_long")
    assert_too_long(client.get(f"/v1/jobs/{job['id']}/results"), 1)


def test_a_text_that_was_scored_truncated_is_refused_nevertheless(client: httpx.Client) -> None:
    truncated = client.post("/v1/rerank", json=BODY | {"truncate": "END"})
    assert [row.get("truncated", False) for row in truncated.json()["results"]] == [False, True]
    assert_too_long(client.post("/v1/rerank", json=BODY), 1)


def test_the_end_of_a_text_has_a_score_of_its_own(client: httpx.Client) -> None:
    scores = {
        mode: client.post("/v1/rerank", json=BODY | {"documents": [LONG], "truncate": mode}).json()["results"][0]
        for mode in ("END", "START")
    }
    assert [row["truncated"] for row in scores.values()] == [True, True]
    assert scores["END"]["relevance_score"] == 0
    assert scores["START"]["relevance_score"] > 0.9
