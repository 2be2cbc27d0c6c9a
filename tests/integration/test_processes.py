"""Two processes serve the API: their metrics and limits are those of one service, and one of them may die."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from api.auth.key_store import KeyStore, Scope
from infra.local.stack import ROOT, Stack
from shared.contracts import WorkClass
from shared.keys import pool_keys
from shared.owner_limits import OwnerLimits, OwnerTerms
from shared.store.client import connect_async
from tests.stacks import PANDA, running, write_models
from tests.worker.support import wait_until

MODEL = "test-model"
SHARD_SECONDS = 1.5
LOST = 0
"""Instead of a status: the connection was lost."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Scoring takes SHARD_SECONDS."""
    folder: Path = tmp_path_factory.mktemp("models")
    entry = {"engine_args": {"delay_seconds": SHARD_SECONDS}}
    with running(environment={"RERANKQ_MODELS_FILE": write_models(folder, **entry)}, processes=2) as started:
        wait_until(lambda: len(serving(started, 40)) == 2, 30)
        yield started


def processes_of(stack: Stack) -> list[psutil.Process]:
    """The processes that serve, without the one that supervises them."""
    return psutil.Process(stack.child("api").pid).children()


def serving(stack: Stack, connections: int) -> set[int]:
    """The pids of the processes that serve so many new connections."""
    port = {}
    clients = [httpx.Client(base_url=stack.url) for _ in range(connections)]
    try:
        for client in clients:
            assert client.get("/health").status_code == 200
        for process in processes_of(stack):
            for connection in process.net_connections("tcp"):
                if connection.status == psutil.CONN_ESTABLISHED and connection.laddr.port == stack.port:
                    port[connection.raddr.port] = process.pid
    finally:
        for client in clients:
            client.close()
    return set(port.values())


def rerank(stack: Stack, headers: dict[str, str] | None = None) -> int:
    """The status of a call over a new connection."""
    try:
        return httpx.post(f"{stack.url}/v1/rerank", json=PANDA, headers=headers, timeout=30).status_code
    except httpx.TransportError:
        return LOST


def scrape(stack: Stack) -> list[Sample]:
    """All samples of a scrape over a new connection."""
    families = text_string_to_metric_families(httpx.get(f"{stack.url}/metrics").text)
    return [sample for family in families for sample in family.samples]


def count_of(stack: Stack, path: str) -> float:
    """The requests of a path."""
    name = "rerankq_http_requests_total"
    return sum(each.value for each in scrape(stack) if each.name == name and each.labels["route"] == path)


def value_of(stack: Stack, name: str) -> float:
    """A metric without labels."""
    (value,) = [each.value for each in scrape(stack) if each.name == name]
    return value


def open_calls(stack: Stack) -> int:
    """Calls whose jobs are not scored yet."""
    with redis.Redis.from_url(stack.redis_url) as client:
        return int(client.zcard(pool_keys.open_jobs(MODEL, WorkClass.INTERACTIVE)))


async def create_key(redis_url: str, limits: OwnerLimits) -> str:
    async with connect_async(redis_url) as client:
        return await KeyStore(client).create("limited", OwnerTerms(limits=limits), scopes=list(Scope))


def jobs_of(stack: Stack) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = httpx.get(f"{stack.url}/v1/jobs", params={"limit": 100}).json()["data"]
    return listed


def test_both_processes_serve_and_every_scrape_has_the_sum_of_their_requests(stack: Stack) -> None:
    before = count_of(stack, "/health")
    assert serving(stack, 40) == {process.pid for process in processes_of(stack)}
    for _ in range(10):
        assert count_of(stack, "/health") == before + 40


def test_processor_time_is_the_sum_and_does_not_decrease_when_a_process_dies(stack: Stack) -> None:
    name = "process_cpu_seconds_total"
    all_processes = [psutil.Process(stack.child("api").pid), *processes_of(stack)]
    expected = sum(each.cpu_times().user + each.cpu_times().system for each in all_processes)
    before = value_of(stack, name)
    assert expected <= before + 0.05
    processes_of(stack)[0].kill()
    for _ in range(20):
        after = value_of(stack, name)
        assert after >= before
        before = after
    wait_until(lambda: len(serving(stack, 40)) == 2, 30)


def test_one_batch_runner_runs_for_both(stack: Stack) -> None:
    body = {"requests": [PANDA | {"custom_id": str(number)} for number in range(4)]}
    ids = [httpx.post(f"{stack.url}/v1/jobs", json=body).raise_for_status().json()["id"] for _ in range(6)]
    most = 0
    deadline = time.monotonic() + 60
    while {httpx.get(f"{stack.url}/v1/jobs/{each}").json()["status"] for each in ids} != {"succeeded"}:
        assert time.monotonic() < deadline
        most = max(most, sum(len(process.children()) for process in processes_of(stack)))
        time.sleep(0.1)
    assert most == 1


def test_killed_process_is_replaced_and_loses_no_job(stack: Stack) -> None:
    earlier, counted = len(jobs_of(stack)), count_of(stack, "/health")
    victim, survivor = processes_of(stack)
    with ThreadPoolExecutor(16) as threads:
        calls = [threads.submit(rerank, stack) for _ in range(16)]
        wait_until(lambda: open_calls(stack) == 16)
        victim.kill()
        statuses = [call.result() for call in calls]
    # Only the callers of the killed process lose their connections.
    assert set(statuses) == {200, LOST}

    wait_until(lambda: len(serving(stack, 40)) == 2, 30)
    assert survivor in processes_of(stack)
    assert victim not in processes_of(stack)
    assert rerank(stack) == 200
    assert count_of(stack, "/health") >= counted + 40
    wait_until(lambda: {job["status"] for job in jobs_of(stack)} == {"succeeded"}, 30)
    assert len(jobs_of(stack)) == earlier + 17


def test_waiting_callers_and_rates_are_limited_for_both_together(tmp_path: Path) -> None:
    models = write_models(tmp_path, engine_args={"delay_seconds": SHARD_SECONDS})
    environment = {"RERANKQ_MODELS_FILE": models, "RERANKQ_MAX_WAITING": "2"}
    with running(environment=environment, processes=2) as stack:
        with ThreadPoolExecutor(12) as threads:
            statuses = list(threads.map(lambda _: rerank(stack), range(12)))
        # Each process lets one caller wait. All twelve may be connected to one of them.
        assert sorted(set(statuses)) == [200, 503]
        assert statuses.count(200) <= 2

        key = asyncio.run(create_key(stack.redis_url, OwnerLimits(requests_per_second=2)))
        headers = {"Authorization": f"Bearer {key}", "Prefer": "respond-async"}
        # Each process reads the keys again within two seconds.
        wait_until(lambda: {rerank(stack) for _ in range(10)} == {401})
        started = time.monotonic()
        statuses = [rerank(stack, headers) for _ in range(20)]
        assert sorted(set(statuses)) == [202, 429]
        assert statuses.count(202) <= 2 + 2 * (time.monotonic() - started)


def test_application_that_does_not_start_ends_all_processes(tmp_path: Path) -> None:
    models = write_models(tmp_path)
    command = [sys.executable, "-m", "api", "serve", "--port", "0", "--processes", "2", "--models-file", models]
    environment = os.environ | {"RERANKQ_PAYLOADS": "ftp://nowhere"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 3
    assert "'ftp://nowhere' is not the path of a folder" in ended.stderr
    assert "restarted" not in ended.stderr


def test_sigterm_lets_both_processes_finish_their_calls(stack: Stack) -> None:
    """The last test of this stack."""
    children = processes_of(stack)
    with ThreadPoolExecutor(16) as threads:
        calls = [threads.submit(rerank, stack) for _ in range(16)]
        wait_until(lambda: open_calls(stack) == 16)
        stack.child("api").request_stop()
        assert {call.result() for call in calls} == {200}
    wait_until(lambda: stack.child("api").exit_status is not None, 30)
    assert stack.child("api").exit_status == 0
    assert not any(child.is_running() for child in children)
    assert rerank(stack) == LOST
