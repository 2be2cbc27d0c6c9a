"""The whole service on each supported store: the embedded Valkey 9, and the machine's own Redis 7."""

import shutil
import time
from collections.abc import Iterator

import httpx
import pytest
import redis

from infra.local import redis_server
from infra.local.stack import Stack
from tests.integration.test_errors import poll
from tests.stacks import PANDA, client_of, running


def find_system_redis() -> str | None:
    return shutil.which("redis-server")


BINARIES = {"Valkey": redis_server.bundled_server, "Redis": find_system_redis}


@pytest.fixture(scope="module", params=BINARIES)
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    binary = BINARIES[request.param]()
    if binary is None:
        pytest.skip(f"no {request.param} server is installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redis_server, "find_binary", lambda: binary)
        with running(environment={"RERANKQ_SCORE_CACHE": "true"}) as started:
            yield started


@pytest.fixture
def client(stack: Stack) -> Iterator[httpx.Client]:
    with client_of(stack) as opened:
        yield opened


def test_server_has_a_supported_version(stack: Stack) -> None:
    with redis.Redis.from_url(stack.redis_url) as store:
        info = store.info("server")
    version = str(info.get("valkey_version") or info["redis_version"])
    assert int(version.split(".")[0]) >= (9 if "valkey_version" in info else 7)


def test_waiting_call_and_job_return_the_same_result(client: httpx.Client) -> None:
    waited = client.post("/v1/rerank", json=PANDA).json()
    job = client.post("/v1/rerank", json=PANDA, headers={"Prefer": "respond-async"}).json()
    assert poll(client, f"/v1/jobs/{job['id']}", seconds=20)["status"] == "succeeded"
    result = client.get(f"/v1/jobs/{job['id']}/results").json()
    assert result["results"] == waited["results"]


def test_repeated_request_uses_the_score_cache(client: httpx.Client) -> None:
    deadline = time.monotonic() + 10
    cached = 0
    while cached < len(PANDA["documents"]) and time.monotonic() < deadline:
        # The worker writes the cache after it has reported the scores.
        cached = client.post("/v1/rerank", json=PANDA).json()["usage"].get("cached_pairs", 0)
    assert cached == len(PANDA["documents"])


def test_idempotency_key_refers_to_the_first_job(client: httpx.Client) -> None:
    body = PANDA | {"query": "which animal is this?"}
    first, second = (client.post("/v1/rerank", json=body, headers={"Idempotency-Key": "key-1"}) for _ in range(2))
    assert first.json() == second.json()
    conflict = client.post("/v1/rerank", json=PANDA, headers={"Idempotency-Key": "key-1"})
    assert conflict.status_code == 422


def test_full_store_rejects_new_jobs_and_keeps_finished_results(stack: Stack, client: httpx.Client) -> None:
    finished = client.post("/v1/rerank", json=PANDA | {"query": "before"}).json()
    with redis.Redis.from_url(stack.redis_url) as store:
        store.config_set("maxmemory", 1)
        try:
            rejected = client.post("/v1/rerank", json=PANDA | {"query": "while it is full"})
        finally:
            store.config_set("maxmemory", 0)
    assert rejected.status_code == 503
    assert "out of memory" in rejected.json()["message"]
    assert client.get(f"/v1/jobs/{finished['id']}/results").json() == finished
    assert client.post("/v1/rerank", json=PANDA | {"query": "afterwards"}).status_code == 200
