import multiprocessing
import os
import signal
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from api.metrics import BUCKETS, Metrics
from api.pool_monitor import PoolMonitor, PoolSnapshot
from api.processes.group import ProcessGroup
from shared.contracts import WorkClass
from shared.ledger.job_ledger import JobLedger
from shared.ledger.worker_ledger import WorkerLedger
from shared.models import ModelSpec
from shared.pools.heartbeats import HeartbeatWriter, WorkerState
from tests.shared.support import MODEL, make_lease, make_request, make_submission


def read(text: bytes) -> dict[str, float]:
    """Every sample's value, by name and labels."""
    return {
        sample.name + "".join(f" {name}={value}" for name, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


@pytest.fixture
async def pools(async_client: Any, redis_client: Any, ledger: JobLedger) -> dict[str, PoolSnapshot]:
    """A pool with a worker, one leased and one queued interactive shard, and a queued batch job."""
    await ledger.submit(make_submission("job-1", request=make_request("a", "b", "c"), shards=2))
    await ledger.submit(make_submission("job-2", work_class=WorkClass.BATCH))
    WorkerLedger(redis_client, MODEL).claim(make_lease(0))
    HeartbeatWriter(redis_client, MODEL, "w1").beat(WorkerState.READY, tokens_per_second=1500.0)
    return await PoolMonitor(async_client, [ModelSpec(name=MODEL)]).fetch()


class TestPools:
    def test_load_is_reported_by_class_and_state(self, pools: dict[str, PoolSnapshot]) -> None:
        samples = read(Metrics().render(pools))
        labels = [("interactive", "queued"), ("interactive", "running"), ("batch", "queued"), ("batch", "running")]
        loads = {
            unit: [
                samples[f"rerankq_pool_{unit} class={work_class} model={MODEL} state={state}"]
                for work_class, state in labels
            ]
            for unit in ("jobs", "pairs", "tokens")
        }
        assert loads == {"jobs": [0, 1, 1, 0], "pairs": [1, 2, 2, 0], "tokens": [11, 20, 20, 0]}

    def test_workers_and_their_measurements_are_reported(self, pools: dict[str, PoolSnapshot]) -> None:
        samples = read(Metrics().render(pools))
        assert samples[f"rerankq_pool_workers model={MODEL} state=ready"] == 1
        assert samples[f"rerankq_pool_workers model={MODEL} state=draining"] == 0
        assert samples[f"rerankq_pool_tokens_per_second model={MODEL}"] == 1500
        assert samples[f"rerankq_pool_desired_workers model={MODEL}"] == 1
        assert samples[f"rerankq_pool_shards model={MODEL}"] == 3

    def test_outcomes_of_webhooks_are_counted(self) -> None:
        samples = read(Metrics().render({}, {"delivered": 3, "failed": 1}))
        counts = [
            samples[f"rerankq_webhook_deliveries_total outcome={name}"] for name in ("delivered", "retried", "failed")
        ]
        assert counts == [3, 0, 1]

    async def test_unknown_measurements_have_no_sample(self, async_client: Any) -> None:
        pools = await PoolMonitor(async_client, [ModelSpec(name=MODEL)]).fetch()
        names = {name.partition(" ")[0] for name in read(Metrics().render(pools))}
        assert "rerankq_pool_workers" in names
        assert not names & {"rerankq_pool_tokens_per_second", "rerankq_pool_start_seconds", "rerankq_pool_idle_seconds"}


class TestRequests:
    def test_requests_are_counted_by_path_and_status(self) -> None:
        metrics = Metrics(["/v1/rerank"])
        for path, status in (("/v1/rerank", 200), ("/v1/rerank", 200), ("/v1/rerank", 503), ("", 404)):
            metrics.observe(path, status, 0.1)
        samples = read(metrics.render({}))
        assert samples["rerankq_http_requests_total path=/v1/rerank status=200"] == 2
        assert samples["rerankq_http_requests_total path=/v1/rerank status=503"] == 1
        assert samples["rerankq_http_requests_total path= status=404"] == 1

    def test_seconds_are_counted_in_cumulative_buckets(self) -> None:
        metrics = Metrics(["/v1/rerank"])
        for seconds in (0.001, 0.005, 0.006, 59.0, 100.0):
            metrics.observe("/v1/rerank", 200, seconds)
        samples = read(metrics.render({}))
        name = "rerankq_http_request_seconds"
        cumulative = [samples[f"{name}_bucket le={bound} path=/v1/rerank"] for bound in (*BUCKETS, "+Inf")]
        assert cumulative == [2, *[3] * (len(BUCKETS) - 2), 4, 5]
        assert samples[f"{name}_count path=/v1/rerank"] == 5
        assert samples[f"{name}_sum path=/v1/rerank"] == pytest.approx(159.012)

    def test_unknown_paths_are_counted_together(self) -> None:
        metrics = Metrics(["/v1/rerank"])
        for path in ("/made/up", "/invented"):
            metrics.observe(path, 404, 0.1)
        samples = read(metrics.render({}))
        assert samples["rerankq_http_requests_total path= status=404"] == 2

    def test_process_metrics_are_included(self) -> None:
        assert read(Metrics().render({}))["process_resident_memory_bytes"] > 1_000_000


class TestSeveralProcesses:
    def test_requests_of_all_processes_are_added(self) -> None:
        group = ProcessGroup(2)
        metrics = Metrics(["/v1/rerank"], group)
        for number in (0, 1):
            count_in_process(number, group, metrics, [("/v1/rerank", 200), ("", 404 + number)])
        samples = read(metrics.render({}))
        assert samples["rerankq_http_requests_total path=/v1/rerank status=200"] == 2
        assert samples["rerankq_http_requests_total path= status=404"] == 1
        assert samples["rerankq_http_requests_total path= status=405"] == 1
        assert samples["rerankq_http_request_seconds_count path=/v1/rerank"] == 2

    def test_successor_of_a_killed_process_continues_its_counts(self) -> None:
        group = ProcessGroup(2)
        metrics = Metrics(["/v1/rerank"], group)
        for _ in range(3):
            count_in_process(1, group, metrics, [("/v1/rerank", 200)])
        assert read(metrics.render({}))["rerankq_http_requests_total path=/v1/rerank status=200"] == 3


def count_in_process(number: int, group: ProcessGroup, metrics: Metrics, responses: list[tuple[str, int]]) -> None:
    """Count responses in a forked process of the group, which is then killed."""

    def run() -> None:
        group.join(number)
        metrics.join()
        for path, status in responses:
            metrics.observe(path, status, 0.1)
        os.kill(os.getpid(), signal.SIGKILL)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
