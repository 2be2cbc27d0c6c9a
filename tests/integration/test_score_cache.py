"""Requests with cached scores: without any worker, and with a slow worker for the other pairs."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from infra.local.stack import Options, Stack
from shared.contracts import RerankRequest
from shared.models import load_models
from shared.score_cache import ScoreWriter
from shared.store.client import connect
from tests.shared.support import make_request, make_scores
from tests.stacks import client_of, write_models

SLOW_SECONDS = 0.6
BODY = {"query": "a query", "documents": ["one", "two", "one"]}
ORDER = [(1, 0.75), (0, 0.25), (2, 0.25)]


@contextmanager
def running_service(folder: Path, *, workers: int, **engine_args: float) -> Iterator[Stack]:
    """A running service with this number of workers."""
    environment = {"RERANKQ_MODELS_FILE": write_models(folder, engine_args=engine_args), "RERANKQ_WAIT_SECONDS": "0.2"}
    with Stack(Options(port=0, workers=workers, environment=environment)) as stack:
        stack.start_redis()
        stack.start_service()
        wait_for_200(stack, "/ready" if workers else "/health")
        yield stack


def wait_for_200(stack: Stack, path: str) -> None:
    deadline = time.monotonic() + 60
    with client_of(stack) as client:
        while time.monotonic() < deadline:
            stack.check()
            try:
                if client.get(path).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
    raise AssertionError(f"{path} does not return 200")


def cache_scores(stack: Stack, folder: Path, request: RerankRequest, *scores: float) -> None:
    """Write scores to the cache, as a worker does."""
    spec = load_models(folder / "models.yaml").default
    with connect(stack.redis_url) as client:
        ScoreWriter(client, spec, dtype=None, seconds=60, entries=1000).write(request, make_scores(*scores))


def order(response: httpx.Response) -> list[tuple[int, float]]:
    return [(row["index"], row["relevance_score"]) for row in response.json()["results"]]


@pytest.fixture(scope="module")
def workerless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("models")
    with running_service(folder, workers=0) as started:
        cache_scores(started, folder, make_request("one", "two"), 0.25, 0.75)
        yield started


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("models")
    with running_service(folder, workers=1, delay_seconds=SLOW_SECONDS) as started:
        cache_scores(started, folder, make_request("known", query="some word"), 0.99)
        yield started


class TestWithoutAnyWorker:
    @pytest.fixture
    def client(self, workerless: Stack) -> Iterator[httpx.Client]:
        with client_of(workerless) as opened:
            yield opened

    def test_request_with_cached_scores_only_succeeds(self, client: httpx.Client) -> None:
        response = client.post("/v1/rerank", json=BODY)
        assert (response.status_code, order(response)) == (200, ORDER)
        assert response.json()["usage"] == {
            "prompt_tokens": 0,
            "completion_tokens": 0,
            "total_tokens": 0,
            "rerank_units": 1,
            "cached_pairs": 3,
        }

    @pytest.mark.parametrize("path", ["/v1/rerank", "/nebul/v1/rerank"])
    def test_job_result_equals_the_response_byte_for_byte(self, client: httpx.Client, path: str) -> None:
        response = client.post(path, json=BODY)
        assert client.get(f"/v1/jobs/{response.json()['id']}/results").content == response.content

    def test_job_with_cached_scores_only_succeeds_at_once(self, client: httpx.Client) -> None:
        accepted = client.post("/v1/rerank", json=BODY, headers={"Prefer": "respond-async"})
        assert (accepted.status_code, accepted.json()["status"]) == (202, "succeeded")
        assert accepted.json()["progress"] == {"pairs_total": 3, "pairs_done": 3, "shards_total": 0, "shards_done": 0}
        assert order(client.get(accepted.json()["results"])) == ORDER

    def test_idempotency_key_returns_the_same_response(self, client: httpx.Client) -> None:
        first, again = [client.post("/v1/rerank", json=BODY, headers={"Idempotency-Key": "mine"}) for _ in range(2)]
        assert first.content == again.content

    def test_request_without_cached_scores_waits_for_a_worker(self, client: httpx.Client) -> None:
        assert client.post("/v1/rerank", json=BODY | {"query": "another"}).status_code == 504


class TestWithASlowWorker:
    @pytest.fixture
    def client(self, slow: Stack) -> Iterator[httpx.Client]:
        with client_of(slow) as opened:
            yield opened

    def test_other_pairs_are_scored_and_the_whole_result_is_available_after_a_504(self, client: httpx.Client) -> None:
        body = {"query": "some word", "documents": [{"text": "word", "id": 1}, "known", {"text": "word", "id": 2}]}
        key = {"Idempotency-Key": "mine"}
        late = client.post("/v1/rerank", json=body, headers=key)
        assert late.status_code == 504
        location = late.headers["location"]
        job = client.get(location, headers={"Prefer": "wait=10"}).json()
        while job["status"] != "succeeded":
            job = client.get(location, headers={"Prefer": "wait=10"}).json()
            assert job["status"] in ("queued", "running", "succeeded")
        assert job["progress"].pop("pairs_per_second") > 0
        assert job["progress"] == {"pairs_total": 3, "pairs_done": 3, "shards_total": 1, "shards_done": 1}

        result = client.get(job["results"])
        assert [row["document"] for row in result.json()["results"]] == [
            {"text": "known"},
            {"text": "word", "id": 1},
            {"text": "word", "id": 2},
        ]
        assert result.json()["usage"]["cached_pairs"] == 1
        assert client.post("/v1/rerank", json=body, headers=key).content == result.content

    def test_pairs_with_own_queries_are_cached_under_these_queries(self, client: httpx.Client) -> None:
        pairs = {"data_1": ["red fox", "blue whale"], "data_2": ["a red fox", "a red whale"]}
        job = client.post("/vllm/score", json=pairs, headers={"Prefer": "respond-async"}).json()
        while client.get(f"/v1/jobs/{job['id']}", headers={"Prefer": "wait=10"}).json()["status"] != "succeeded":
            pass
        scores = [row["score"] for row in client.get(f"/v1/jobs/{job['id']}/results").json()["data"]]
        for query, text, score in zip(*pairs.values(), scores, strict=True):
            response = client.post("/v1/rerank", json={"query": query, "documents": [text]})
            assert (response.status_code, order(response)) == (200, [(0, score)])
            assert response.json()["usage"]["cached_pairs"] == 1
        assert client.post("/v1/rerank", json={"query": "red fox", "documents": ["a red whale"]}).status_code == 504
