"""When Redis is out of memory, new jobs are rejected and accepted jobs finish."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from infra.local.stack import Stack
from shared.keys import job_keys
from tests.integration.test_errors import poll
from tests.stacks import PANDA, client_of, running, write_models

SHARD_SECONDS = 1.0
SEVERAL_SHARDS = {"query": "panda", "documents": [f"panda {number} " + "word " * 60 for number in range(12)]}


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    environment = {
        "RERANKQ_MODELS_FILE": write_models(tmp_path, engine_args={"delay_seconds": SHARD_SECONDS}),
        "RERANKQ_SHARD_TOKENS": "200",
        "RERANKQ_BATCH_WINDOW": "2",
    }
    with running(environment=environment) as started:
        yield started


def test_new_jobs_are_rejected_and_accepted_jobs_succeed(stack: Stack) -> None:
    with client_of(stack) as client, redis.Redis.from_url(stack.redis_url) as store:
        respond_async = {"Prefer": "respond-async"}
        job = client.post("/v1/rerank", json=SEVERAL_SHARDS, headers=respond_async).json()
        assert job["progress"]["shards_total"] >= 4
        store.config_set("maxmemory", 1)
        try:
            rejected = client.post("/v1/rerank", json=PANDA)
            # Redis itself refuses the job, or the API does, which reads Redis's memory once a second.
            assert rejected.status_code == 503
            assert rejected.json()["message"] in (
                "the job store is out of memory; try again",
                "the job store is almost full",
            )
            assert int(rejected.headers["retry-after"]) >= 1
            time.sleep(3 * SHARD_SECONDS)
        finally:
            store.config_set("maxmemory", 0)
        assert poll(client, f"/v1/jobs/{job['id']}", seconds=40)["status"] == "succeeded"
        rows = client.get(f"/v1/jobs/{job['id']}/results").json()["results"]
        assert len(rows) == len(SEVERAL_SHARDS["documents"])
        deadline = time.monotonic() + 5
        while client.post("/v1/rerank", json=PANDA).status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        # No worker crashed, and no lease expired.
        stack.check()
        assert not [name for name in store.hkeys(job_keys.shards(job["id"])) if name.endswith(b":crashes")]
