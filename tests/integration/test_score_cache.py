"""Scores that are known before they are asked for: with no worker at all, and with a slow one for the rest."""

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
def serving(folder: Path, *, workers: int, **engine_args: float) -> Iterator[Stack]:
    """A service whose API answers, with so many workers."""
    environment = {"RERANKQ_MODELS_FILE": write_models(folder, engine_args=engine_args), "RERANKQ_WAIT_SECONDS": "0.2"}
    with Stack(Options(port=0, workers=workers, environment=environment)) as stack:
        stack.start_redis()
        stack.start_service()
        wait_until_it_answers(stack, "/ready" if workers else "/health")
        yield stack


def wait_until_it_answers(stack: Stack, path: str) -> None:
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
    raise AssertionError(f"{path} is not there")


def remember_in(stack: Stack, folder: Path, request: RerankRequest, *scores: float) -> None:
    """As a worker does that has scored the request."""
    spec = load_models(folder / "models.yaml").default
    with connect(stack.redis_url) as client:
        ScoreWriter(client, spec, seconds=60, entries=1000).write(request, make_scores(*scores))


def order(answer: httpx.Response) -> list[tuple[int, float]]:
    return [(row["index"], row["relevance_score"]) for row in answer.json()["results"]]


@pytest.fixture(scope="module")
def workerless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("models")
    with serving(folder, workers=0) as started:
        remember_in(started, folder, make_request("one", "two"), 0.25, 0.75)
        yield started


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("models")
    with serving(folder, workers=1, delay_seconds=SLOW_SECONDS) as started:
        remember_in(started, folder, make_request("known", query="some word"), 0.99)
        yield started


class TestWithoutAnyWorker:
    @pytest.fixture
    def client(self, workerless: Stack) -> Iterator[httpx.Client]:
        with client_of(workerless) as opened:
            yield opened

    def test_what_is_known_is_answered(self, client: httpx.Client) -> None:
        answer = client.post("/v1/rerank", json=BODY)
        assert (answer.status_code, order(answer)) == (200, ORDER)
        assert answer.json()["usage"] == {
            "prompt_tokens": 0,
            "completion_tokens": 0,
            "total_tokens": 0,
            "cached_pairs": 3,
        }

    @pytest.mark.parametrize("path", ["/v1/rerank", "/nebul/v1/rerank"])
    def test_its_result_is_byte_for_byte_the_same_later(self, client: httpx.Client, path: str) -> None:
        answer = client.post(path, json=BODY)
        assert client.get(f"/v1/jobs/{answer.json()['id']}/results").content == answer.content

    def test_a_job_has_succeeded_at_once(self, client: httpx.Client) -> None:
        taken = client.post("/v1/rerank", json=BODY, headers={"Prefer": "respond-async"})
        assert (taken.status_code, taken.json()["status"]) == (202, "succeeded")
        assert taken.json()["progress"] == {"pairs_total": 3, "pairs_done": 3, "shards_total": 0, "shards_done": 0}
        assert order(client.get(taken.json()["results"])) == ORDER

    def test_the_same_key_is_the_same_answer(self, client: httpx.Client) -> None:
        first, again = [client.post("/v1/rerank", json=BODY, headers={"Idempotency-Key": "mine"}) for _ in range(2)]
        assert first.content == again.content

    def test_what_is_not_known_waits_for_a_worker(self, client: httpx.Client) -> None:
        assert client.post("/v1/rerank", json=BODY | {"query": "another"}).status_code == 504


class TestWithASlowWorker:
    @pytest.fixture
    def client(self, slow: Stack) -> Iterator[httpx.Client]:
        with client_of(slow) as opened:
            yield opened

    def test_the_rest_is_scored_and_picked_up_whole_after_a_504(self, client: httpx.Client) -> None:
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

    def test_pairs_with_queries_of_their_own_are_remembered_under_these(self, client: httpx.Client) -> None:
        pairs = {"data_1": ["red fox", "blue whale"], "data_2": ["a red fox", "a red whale"]}
        taken = client.post("/vllm/score", json=pairs, headers={"Prefer": "respond-async"}).json()
        while client.get(f"/v1/jobs/{taken['id']}", headers={"Prefer": "wait=10"}).json()["status"] != "succeeded":
            pass
        scores = [row["score"] for row in client.get(f"/v1/jobs/{taken['id']}/results").json()["data"]]
        for query, text, score in zip(*pairs.values(), scores, strict=True):
            answer = client.post("/v1/rerank", json={"query": query, "documents": [text]})
            assert (answer.status_code, order(answer)) == (200, [(0, score)])
            assert answer.json()["usage"]["cached_pairs"] == 1
        assert client.post("/v1/rerank", json={"query": "red fox", "documents": ["a red whale"]}).status_code == 504
