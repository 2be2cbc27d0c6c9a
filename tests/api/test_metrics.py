from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from api.metrics import BUCKETS, Metrics
from api.pool_monitor import PoolMonitor, PoolSnapshot
from shared.contracts import WorkClass
from shared.ledger.job_ledger import JobLedger
from shared.ledger.worker_ledger import WorkerLedger
from shared.models import ModelSpec
from shared.pools.heartbeats import HeartbeatWriter, WorkerState
from tests.shared.support import MODEL, make_lease, make_request, make_submission


def read(text: bytes) -> dict[str, float]:
    """Every sample by its name and labels, as Prometheus understands it."""
    return {
        sample.name + "".join(f" {name}={value}" for name, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


@pytest.fixture
async def pools(async_client: Any, redis_client: Any, ledger: JobLedger) -> dict[str, PoolSnapshot]:
    """A pool with a worker that has one of two interactive shards in hand, and a batch job waiting."""
    await ledger.submit(make_submission("job-1", request=make_request("a", "b", "c"), shards=2))
    await ledger.submit(make_submission("job-2", work_class=WorkClass.BATCH))
    WorkerLedger(redis_client, MODEL).claim(make_lease(0))
    HeartbeatWriter(redis_client, MODEL, "w1").beat(WorkerState.READY, tokens_per_second=1500.0)
    return await PoolMonitor(async_client, [ModelSpec(name=MODEL)]).look()


class TestPools:
    def test_its_load_is_told_by_class_and_state(self, pools: dict[str, PoolSnapshot]) -> None:
        samples = read(Metrics().render(pools))
        places = [("interactive", "queued"), ("interactive", "running"), ("batch", "queued"), ("batch", "running")]
        loads = {
            what: [
                samples[f"rerankq_pool_{what} class={work_class} model={MODEL} state={state}"]
                for work_class, state in places
            ]
            for what in ("jobs", "pairs", "tokens")
        }
        assert loads == {"jobs": [0, 1, 1, 0], "pairs": [1, 2, 2, 0], "tokens": [11, 20, 20, 0]}

    def test_its_workers_and_what_they_measured_are_told(self, pools: dict[str, PoolSnapshot]) -> None:
        samples = read(Metrics().render(pools))
        assert samples[f"rerankq_pool_workers model={MODEL} state=ready"] == 1
        assert samples[f"rerankq_pool_workers model={MODEL} state=draining"] == 0
        assert samples[f"rerankq_pool_tokens_per_second model={MODEL}"] == 1500
        assert samples[f"rerankq_pool_desired_workers model={MODEL}"] == 1
        assert samples[f"rerankq_pool_shards model={MODEL}"] == 3

    async def test_what_was_never_measured_is_no_number(self, async_client: Any) -> None:
        pools = await PoolMonitor(async_client, [ModelSpec(name=MODEL)]).look()
        names = {name.partition(" ")[0] for name in read(Metrics().render(pools))}
        assert "rerankq_pool_workers" in names
        assert not names & {"rerankq_pool_tokens_per_second", "rerankq_pool_start_seconds", "rerankq_pool_idle_seconds"}


class TestRequests:
    def test_they_are_counted_by_path_and_status(self) -> None:
        metrics = Metrics()
        for path, status in (("/v1/rerank", 200), ("/v1/rerank", 200), ("/v1/rerank", 503), ("", 404)):
            metrics.observe(path, status, 0.1)
        samples = read(metrics.render({}))
        assert samples["rerankq_http_requests_total path=/v1/rerank status=200"] == 2
        assert samples["rerankq_http_requests_total path=/v1/rerank status=503"] == 1
        assert samples["rerankq_http_requests_total path= status=404"] == 1

    def test_their_seconds_fall_into_buckets(self) -> None:
        metrics = Metrics()
        for seconds in (0.001, 0.005, 0.006, 59.0, 100.0):
            metrics.observe("/v1/rerank", 200, seconds)
        samples = read(metrics.render({}))
        name = "rerankq_http_request_seconds"
        below = [samples[f"{name}_bucket le={bound} path=/v1/rerank"] for bound in (*BUCKETS, "+Inf")]
        assert below == [2, *[3] * (len(BUCKETS) - 2), 4, 5]
        assert samples[f"{name}_count path=/v1/rerank"] == 5
        assert samples[f"{name}_sum path=/v1/rerank"] == pytest.approx(159.012)

    def test_the_process_tells_of_itself(self) -> None:
        assert read(Metrics().render({}))["process_resident_memory_bytes"] > 1_000_000
