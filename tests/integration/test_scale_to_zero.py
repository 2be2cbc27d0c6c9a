"""From no worker to one and back, as the process table has it; with the lexical engine, so that a start is short."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import redis
import yaml

from infra.local.stack import Stack
from shared.keys import job_keys, pool_keys
from tests.cycles import ask, check_cycles
from tests.stacks import running
from tests.stacks import said_by_autoscaler as said
from tests.stacks import workers_of as workers
from tests.worker.support import wait_until

IDLE_SECONDS = 0.3


def until_none_is_left(stack: Stack) -> None:
    wait_until(lambda: not workers(stack), seconds=20)


def test_zero_one_zero() -> None:
    with running(pool={"idle_seconds": 1}) as stack:
        assert workers(stack) == []
        assert ask(stack).json()["results"][0]["index"] == 2
        (worker,) = workers(stack)
        time.sleep(0.5)
        assert ask(stack).status_code == 200
        assert workers(stack) == [worker]
        until_none_is_left(stack)
        assert not worker.is_running()
        # It is said a moment after the process has ended.
        wait_until(lambda: said(stack)[-1] == "the worker has stopped")
        sentences = said(stack)
        assert sentences[0] == "1 request waits: starting a worker"
        assert sentences[1].startswith("ready after ")
        assert sentences[2:] == ["quiet for 1 s: stopping the worker", "the worker has stopped"]


def test_a_pool_may_always_have_one() -> None:
    with running(pool={"min": 1, "idle_seconds": 0}) as stack:
        wait_until(lambda: len(workers(stack)) == 1)
        (worker,) = workers(stack)
        assert ask(stack).status_code == 200
        worker.kill()
        wait_until(lambda: len(workers(stack)) == 1 and workers(stack) != [worker])
        assert ask(stack).status_code == 200


@pytest.mark.slow
def test_requests_at_every_phase_are_answered_and_nobody_waits_longer_than_for_a_start() -> None:
    """`make test-long` has twenty cycles, and the real engine."""
    with running(pool={"idle_seconds": IDLE_SECONDS}) as stack:
        check_cycles(stack, 4, IDLE_SECONDS)


@contextmanager
def two_models(folder: Path, **environment: str) -> Iterator[Stack]:
    """Two models on a machine with room for one worker; the first one is slow."""
    entries = [
        {"name": "slow", "engine": "lexical", "engine_args": {"delay_seconds": 0.8}},
        {"name": "quick", "engine": "lexical"},
    ]
    path = folder / "models.yaml"
    path.write_text(yaml.safe_dump({"models": entries}))
    variables = {
        "RERANKQ_MODELS_FILE": str(path),
        "RERANKQ_CAPACITY": "1",
        "RERANKQ_SHARD_TOKENS": "64",
        "RERANKQ_CONCURRENCY": "4",
        "RERANKQ_RESERVED": "0",
    }
    with running(engine=None, pool={"idle_seconds": 0.3}, environment=variables | environment) as stack:
        yield stack


def test_a_worker_that_has_to_go_amid_a_batch_gives_its_shards_back_free_of_charge(tmp_path: Path) -> None:
    with two_models(tmp_path, RERANKQ_DRAIN_SECONDS="0.1") as stack:
        texts = [f"giant panda number {number} " + "and more " * number for number in range(24)]
        body = {"model": "slow", "query": "giant panda", "documents": texts}
        job = httpx.post(f"{stack.url}/v1/rerank", json=body, headers={"Prefer": "respond-async"}).json()
        with redis.Redis.from_url(stack.redis_url) as client:
            wait_until(lambda: "leased" in shard_states(client, job["id"]), seconds=20)

            # Somebody waits for the other model, and there is room for one worker only.
            assert ask(stack, model="quick").status_code == 200
            wait_until(lambda: ended(stack, job["id"]), seconds=60)
            fields: dict[bytes, bytes] = client.hgetall(job_keys.shards(job["id"]))
        assert not [name for name in fields if name.endswith((b":crashes", b":retries"))]
        results = httpx.get(f"{stack.url}/v1/jobs/{job['id']}/results").json()["results"]
        assert len(results) == len(texts)
        assert [row["index"] for row in results] == list(range(24))
        assert "slow: another model needs the place: stopping the worker" in said(stack)


def shard_states(client: Any, job_id: str) -> set[str]:
    fields = client.hgetall(job_keys.shards(job_id))
    return {value.decode() for name, value in fields.items() if name.endswith(b":status")}


def ended(stack: Stack, job_id: str) -> bool:
    return bool(httpx.get(f"{stack.url}/v1/jobs/{job_id}").json()["status"] == "succeeded")


def test_a_model_that_cannot_start_is_a_503_with_the_reason_until_it_can(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"

    def write(delay: object) -> None:
        entry = {"name": "test-model", "engine": "lexical", "engine_args": {"delay_seconds": delay}}
        path.write_text(yaml.safe_dump({"models": [entry]}))

    write("soon")
    with running(engine=None, pool={}, environment={"RERANKQ_MODELS_FILE": str(path)}) as stack:
        answer = ask(stack)
        assert answer.status_code == 503
        assert answer.json()["error"]["type"] == "model_unavailable"
        assert "engine_args.delay_seconds must be a number of seconds, 0 or more" in answer.json()["message"]
        assert int(answer.headers["Retry-After"]) >= 1
        assert workers(stack) == []

        # Who asks again and again makes it be tried again, less and less often.
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            assert ask(stack).status_code == 503
            time.sleep(0.05)
        starts = [sentence for sentence in said(stack) if "starting a worker" in sentence]
        assert 2 <= len(starts) <= 4

        write(0)
        wait_until(lambda: ask(stack).status_code == 200, seconds=30)
        assert len(workers(stack)) == 1


def test_a_worker_that_dies_without_a_word_is_explained_by_its_log(tmp_path: Path) -> None:
    environment = {"RERANKQ_CONCURRENCY": "none of your business"}
    with running(pool={}, environment=environment) as stack:
        answer = ask(stack)
        assert answer.status_code == 503
        assert "ended with status 2 before it was ready" in answer.json()["message"]
        assert "RERANKQ_CONCURRENCY" in answer.json()["message"]


def test_a_standby_forks_workers_that_go_away_again() -> None:
    with running(pool={"idle_seconds": 0.3, "standby": True}) as stack:
        wait_until(lambda: any("standby is ready" in sentence for sentence in said(stack)), seconds=20)
        (standby,) = workers(stack)
        for _ in range(3):
            assert ask(stack).status_code == 200
            assert len(workers(stack)) == 2
            wait_until(lambda: workers(stack) == [standby], seconds=20)


@pytest.mark.parametrize("standby", [False, True], ids=["plain", "standby"])
def test_killed_outright_the_autoscaler_takes_its_workers_along_and_a_new_one_takes_over(standby: bool) -> None:
    with running(pool={"standby": standby}) as stack:
        assert ask(stack).status_code == 200
        family = workers(stack)
        assert len(family) == 1 + standby
        os.kill(stack.child("autoscaler").pid, signal.SIGKILL)
        _, alive = psutil.wait_procs(family, timeout=15)
        assert alive == []
        wait_until(lambda: stack.tend() == [] and stack.child("autoscaler").exit_status is None, seconds=10)
        assert ask(stack).status_code == 200


def test_told_to_stop_it_stops_its_workers_first() -> None:
    with running(pool={}) as stack:
        assert ask(stack).status_code == 200
        (worker,) = workers(stack)
        os.kill(stack.child("autoscaler").pid, signal.SIGTERM)
        wait_until(lambda: stack.child("autoscaler").exit_status is not None, seconds=20)
        assert stack.child("autoscaler").exit_status == 0
        assert not worker.is_running()
        assert said(stack)[-1] == "the worker has stopped"


def test_what_it_does_is_seen_in_the_pools_heartbeats() -> None:
    with running(pool={}) as stack, redis.Redis.from_url(stack.redis_url) as client:
        assert ask(stack).status_code == 200
        (worker,) = workers(stack)
        (beat,) = map(json.loads, client.hgetall(pool_keys.workers("all-MiniLM-L6-v2")).values())
        assert beat["state"] == "ready"
        assert beat["worker"].endswith(f"-{worker.pid}")
        assert 0.1 < beat["ready_at"] - beat["started_at"] < 20
