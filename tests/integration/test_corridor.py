"""Requests and jobs from the HTTP call to the ranked response, through real Redis, Celery and processes."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from api.openapi.examples import PANDA_DOCUMENTS, PANDA_QUERY
from tests.stacks import PANDA

ORDER = [2, 1, 0]


def order(response: httpx.Response) -> list[int]:
    return [row["index"] for row in response.json()["results"]]


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/v2/rerank"])
def test_waiting_call_returns_the_ranking(client: httpx.Client, path: str) -> None:
    response = client.post(path, json=PANDA)
    assert response.status_code == 200
    assert order(response) == ORDER
    assert response.json()["model"] == "all-MiniLM-L6-v2"


def test_openapi_example_works(client: httpx.Client) -> None:
    example = {"query": PANDA_QUERY, "documents": PANDA_DOCUMENTS}
    assert client.post("/v1/rerank", json=example).status_code == 200
    assert client.get("/openapi.json").status_code == 200
    assert client.get("/docs").status_code == 200


def test_response_has_the_request_id_and_server_timing(client: httpx.Client) -> None:
    response = client.post("/v1/rerank", json=PANDA, headers={"X-Request-Id": "mine-1"})
    assert response.headers["x-request-id"] == "mine-1"
    names = [part.split(";")[0].strip() for part in response.headers["server-timing"].split(",")]
    assert names == ["queue", "inference", "total"]


def test_respond_async_returns_a_job_with_progress_and_result(client: httpx.Client) -> None:
    accepted = client.post("/v1/rerank", json=PANDA, headers={"Prefer": "respond-async"})
    assert accepted.status_code == 202
    assert accepted.headers["preference-applied"] == "respond-async"
    location = accepted.headers["location"]

    job = client.get(location, headers={"Prefer": "wait=10"}).json()
    assert job["status"] == "succeeded"
    assert job["progress"].pop("pairs_per_second") > 0
    assert job["progress"] == {"pairs_total": 3, "pairs_done": 3, "shards_total": 1, "shards_done": 1}
    result = client.get(job["results"])
    assert order(result) == ORDER


def test_job_result_equals_the_waiting_response_byte_for_byte(client: httpx.Client) -> None:
    for path in ("/v1/rerank", "/nebul/v1/rerank"):
        waited = client.post(path, json=PANDA)
        job_id = waited.json()["id"]
        assert client.get(f"/v1/jobs/{job_id}/results").content == waited.content


def test_prefer_wait_returns_a_result_that_is_ready_in_time(client: httpx.Client) -> None:
    response = client.post("/v1/rerank", json=PANDA, headers={"Prefer": "wait=10"})
    assert (response.status_code, response.headers["preference-applied"]) == (200, "wait=10")


def test_deleted_job_is_not_found(client: httpx.Client) -> None:
    job_id = client.post("/v1/rerank", json=PANDA).json()["id"]
    assert client.delete(f"/v1/jobs/{job_id}").status_code == 204
    assert client.get(f"/v1/jobs/{job_id}").status_code == 404
    assert client.delete(f"/v1/jobs/{job_id}").status_code == 404


def test_canceling_a_finished_job_changes_nothing(client: httpx.Client) -> None:
    job_id = client.post("/v1/rerank", json=PANDA).json()["id"]
    assert client.post(f"/v1/jobs/{job_id}/cancel").json()["status"] == "succeeded"
    assert client.get(f"/v1/jobs/{job_id}/results").status_code == 200


def test_concurrent_callers_get_their_own_results(client: httpx.Client) -> None:
    def ask(number: int) -> bool:
        body = {"query": f"word{number}", "documents": [f"word{number + 1}", f"word{number}"], "top_n": 1}
        rows = client.post("/v1/rerank", json=body).json()["results"]
        return [row["document"]["text"] for row in rows] == [f"word{number}"]

    with ThreadPoolExecutor(32) as callers:
        assert all(callers.map(ask, range(300)))


def test_empty_document_fails_alone(client: httpx.Client) -> None:
    response = client.post("/v1/rerank", json={"query": "panda", "documents": ["", "a panda", "  "]})
    rows = response.json()["results"]
    assert [row["index"] for row in rows] == [1, 0, 2]
    assert [row.get("error") for row in rows] == [None, "the document is empty", "the document is empty"]


def test_truncated_document_is_marked(client: httpx.Client) -> None:
    body = {"query": "panda", "documents": ["a panda", "one two three panda"], "max_tokens_per_doc": 2}
    rows = client.post("/v1/rerank", json=body).json()["results"]
    assert {row["index"]: row.get("truncated", False) for row in rows} == {0: False, 1: True}


def test_models_are_listed_and_found_by_alias(client: httpx.Client) -> None:
    listed = client.get("/v1/models").json()["data"]
    assert [(model["id"], model["workers"]["ready"]) for model in listed] == [("all-MiniLM-L6-v2", 1)]
    one = client.get("/v1/models/sentence-transformers/all-MiniLM-L6-v2")
    assert one.json()["id"] == "all-MiniLM-L6-v2"
    assert client.get("/v1/models/nope").status_code == 404


def test_alias_is_accepted_and_returned_as_the_model_name(client: httpx.Client) -> None:
    body = PANDA | {"model": "sentence-transformers/all-MiniLM-L6-v2"}
    assert client.post("/v1/rerank", json=body).json()["model"] == "sentence-transformers/all-MiniLM-L6-v2"
