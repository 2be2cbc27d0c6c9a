"""Scaling from zero workers to one and back, checked in the process table, with the fast-starting lexical engine."""

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
from tests.stacks import autoscaler_messages, running, workers_of
from tests.worker.support import wait_until

IDLE_SECONDS = 0.3


def wait_for_no_worker(stack: Stack) -> None:
    wait_until(lambda: not workers_of(stack), seconds=20)


def test_request_starts_a_worker_that_stops_when_idle() -> None:
    with running(pool={"idle_seconds": 1}) as stack:
        assert workers_of(stack) == []
        assert ask(stack).json()["results"][0]["index"] == 2
        (worker,) = workers_of(stack)
        time.sleep(0.5)
        assert ask(stack).status_code == 200
        assert workers_of(stack) == [worker]
        wait_for_no_worker(stack)
        assert not worker.is_running()
        # The message follows shortly after the process has ended.
        wait_until(lambda: autoscaler_messages(stack)[-1] == "the worker has stopped")
        messages = autoscaler_messages(stack)
        assert messages[0] == "1 request waits: starting a worker"
        assert messages[1].startswith("ready after ")
        assert messages[2:] == ["idle for 1 s: stopping the worker", "the worker has stopped"]


def test_pool_with_min_restarts_a_killed_worker() -> None:
    with running(pool={"min": 1, "idle_seconds": 0}) as stack:
        wait_until(lambda: len(workers_of(stack)) == 1)
        (worker,) = workers_of(stack)
        assert ask(stack).status_code == 200
        worker.kill()
        wait_until(lambda: len(workers_of(stack)) == 1 and workers_of(stack) != [worker])
        assert ask(stack).status_code == 200


@pytest.mark.slow
def test_requests_in_every_phase_take_no_longer_than_a_cold_start() -> None:
    """`make test-long` runs twenty cycles with the real engine."""
    with running(pool={"idle_seconds": IDLE_SECONDS}) as stack:
        check_cycles(stack, 4, IDLE_SECONDS)


@contextmanager
def two_models(folder: Path, **environment: str) -> Iterator[Stack]:
    """Two models on a machine with one worker slot; the first model is slow."""
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


def test_worker_stopped_during_a_batch_job_requeues_its_shards_without_counting_an_attempt(tmp_path: Path) -> None:
    with two_models(tmp_path, RERANKQ_DRAIN_SECONDS="0.1") as stack:
        texts = [f"giant panda number {number} " + "and more " * number for number in range(24)]
        body = {"model": "slow", "query": "giant panda", "documents": texts}
        job = httpx.post(f"{stack.url}/v1/rerank", json=body, headers={"Prefer": "respond-async"}).json()
        with redis.Redis.from_url(stack.redis_url) as client:
            wait_until(lambda: "leased" in shard_states(client, job["id"]), seconds=20)

            # An interactive request for the other model takes the only slot.
            assert ask(stack, model="quick").status_code == 200
            wait_until(lambda: ended(stack, job["id"]), seconds=60)
            fields: dict[bytes, bytes] = client.hgetall(job_keys.shards(job["id"]))
        assert not [name for name in fields if name.endswith((b":crashes", b":retries"))]
        results = httpx.get(f"{stack.url}/v1/jobs/{job['id']}/results").json()["results"]
        assert len(results) == len(texts)
        assert [row["index"] for row in results] == list(range(24))
        assert "slow: another model needs the slot: stopping the worker" in autoscaler_messages(stack)


def shard_states(client: Any, job_id: str) -> set[str]:
    fields = client.hgetall(job_keys.shards(job_id))
    return {value.decode() for name, value in fields.items() if name.endswith(b":status")}


def ended(stack: Stack, job_id: str) -> bool:
    return bool(httpx.get(f"{stack.url}/v1/jobs/{job_id}").json()["status"] == "succeeded")


def test_model_that_cannot_start_is_503_with_the_reason_until_it_can(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"

    def write(delay: object) -> None:
        entry = {"name": "test-model", "engine": "lexical", "engine_args": {"delay_seconds": delay}}
        path.write_text(yaml.safe_dump({"models": [entry]}))

    write("soon")
    with running(engine=None, pool={}, environment={"RERANKQ_MODELS_FILE": str(path)}) as stack:
        response = ask(stack)
        assert response.status_code == 503
        assert response.json()["error"]["type"] == "model_unavailable"
        assert "engine_args.delay_seconds must be a number of seconds, 0 or more" in response.json()["message"]
        assert int(response.headers["Retry-After"]) >= 1
        assert workers_of(stack) == []

        # Repeated requests cause further starts, with growing pauses.
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            assert ask(stack).status_code == 503
            time.sleep(0.05)
        starts = [message for message in autoscaler_messages(stack) if "starting a worker" in message]
        assert 2 <= len(starts) <= 4

        write(0)
        wait_until(lambda: ask(stack).status_code == 200, seconds=30)
        assert len(workers_of(stack)) == 1


def test_error_includes_the_last_log_line_of_a_worker_that_exited(tmp_path: Path) -> None:
    environment = {"RERANKQ_CONCURRENCY": "not a number"}
    with running(pool={}, environment=environment) as stack:
        response = ask(stack)
        assert response.status_code == 503
        assert "exited with status 2 before it was ready" in response.json()["message"]
        assert "RERANKQ_CONCURRENCY" in response.json()["message"]


def test_standby_forks_workers_that_stop_again() -> None:
    with running(pool={"idle_seconds": 0.3, "standby": True}) as stack:
        wait_until(lambda: any("standby is ready" in message for message in autoscaler_messages(stack)), seconds=20)
        (standby,) = workers_of(stack)
        for _ in range(3):
            assert ask(stack).status_code == 200
            assert len(workers_of(stack)) == 2
            wait_until(lambda: workers_of(stack) == [standby], seconds=20)


@pytest.mark.parametrize("standby", [False, True], ids=["plain", "standby"])
def test_killed_autoscaler_ends_its_workers_and_is_restarted(standby: bool) -> None:
    with running(pool={"standby": standby}) as stack:
        assert ask(stack).status_code == 200
        children = workers_of(stack)
        assert len(children) == 1 + standby
        os.kill(stack.child("autoscaler").pid, signal.SIGKILL)
        _, alive = psutil.wait_procs(children, timeout=15)
        assert alive == []
        wait_until(lambda: stack.restart_ended() == [] and stack.child("autoscaler").exit_status is None, seconds=10)
        assert ask(stack).status_code == 200


def test_sigterm_makes_the_autoscaler_stop_its_workers_first() -> None:
    with running(pool={}) as stack:
        assert ask(stack).status_code == 200
        (worker,) = workers_of(stack)
        os.kill(stack.child("autoscaler").pid, signal.SIGTERM)
        wait_until(lambda: stack.child("autoscaler").exit_status is not None, seconds=20)
        assert stack.child("autoscaler").exit_status == 0
        assert not worker.is_running()
        assert autoscaler_messages(stack)[-1] == "the worker has stopped"


def test_worker_writes_heartbeats() -> None:
    with running(pool={}) as stack, redis.Redis.from_url(stack.redis_url) as client:
        assert ask(stack).status_code == 200
        (worker,) = workers_of(stack)
        (beat,) = map(json.loads, client.hgetall(pool_keys.workers("all-MiniLM-L6-v2")).values())
        assert beat["state"] == "ready"
        assert beat["worker"].endswith(f"-{worker.pid}")
        assert 0.1 < beat["ready_at"] - beat["started_at"] < 20
