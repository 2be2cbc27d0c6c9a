"""The metrics that are read from Redis."""

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from api.metrics.exposition import Exposition
from api.metrics.pools import StoreReadings
from api.metrics.readings import StoreReader
from api.pool_monitor import PoolMonitor
from api.processes.group import ProcessGroup
from shared.contracts import WorkClass
from shared.errors import StoreUnavailable
from shared.keys import job_keys, webhook_keys
from shared.ledger.batch_ledger import BatchLedger
from shared.ledger.delivery_ledger import DeliveryLedger
from shared.ledger.job_ledger import JobLedger
from shared.ledger.worker_ledger import WorkerLedger
from shared.metrics.pool_totals import PoolTotals, Series
from shared.models import ModelSpec
from shared.pools.heartbeats import HeartbeatWriter, WorkerState
from shared.store.client import connect_async
from tests.api.metrics.support import samples
from tests.shared.support import MODEL, dead_redis_url, make_lease, make_request, make_submission


def reader(client: Any) -> StoreReader:
    pools, batches = PoolMonitor(client, [ModelSpec(name=MODEL)]), BatchLedger(client, [MODEL])
    return StoreReader(client, pools, batches, DeliveryLedger(client))


async def exposed(client: Any) -> dict[str, float]:
    body, _ = Exposition(CollectorRegistry(), ProcessGroup()).render(await reader(client).read())
    return samples(body)


@pytest.fixture
async def pool(redis_client: Any, ledger: JobLedger) -> None:
    """A pool with a worker, one leased and one queued interactive shard, and a queued batch job."""
    await ledger.submit(make_submission("job-1", request=make_request("a", "b", "c"), shards=2))
    await ledger.submit(make_submission("job-2", work_class=WorkClass.BATCH))
    WorkerLedger(redis_client, MODEL).claim(make_lease(0))
    HeartbeatWriter(redis_client, MODEL, "w1").beat(WorkerState.READY, tokens_per_second=1500.0)


@pytest.mark.usefixtures("pool")
async def test_load_is_exposed_by_class_and_state(async_client: Any) -> None:
    found = await exposed(async_client)
    labels = [("interactive", "queued"), ("interactive", "running"), ("batch", "queued"), ("batch", "running")]
    loads = {
        unit: [found[f"rerankq_pool_{unit} class={group} model={MODEL} state={state}"] for group, state in labels]
        for unit in ("jobs", "pairs", "tokens")
    }
    assert loads == {"jobs": [0, 1, 1, 0], "pairs": [1, 2, 2, 0], "tokens": [11, 20, 20, 0]}


@pytest.mark.usefixtures("pool")
async def test_workers_and_their_measurements_are_exposed(async_client: Any) -> None:
    found = await exposed(async_client)
    assert found[f"rerankq_pool_workers model={MODEL} state=ready"] == 1
    assert found[f"rerankq_pool_workers model={MODEL} state=draining"] == 0
    assert found[f"rerankq_pool_tokens_per_second model={MODEL}"] == 1500
    assert found[f"rerankq_pool_desired_workers model={MODEL}"] == 1
    assert found[f"rerankq_pool_unfinished_shards model={MODEL}"] == 3


async def test_unknown_measurements_have_no_sample(async_client: Any) -> None:
    names = {name.partition(" ")[0] for name in await exposed(async_client)}
    assert "rerankq_pool_workers" in names
    assert not names & {
        "rerankq_pool_tokens_per_second",
        "rerankq_pool_start_seconds",
        "rerankq_pool_idle_seconds",
        "rerankq_redis_memory_limit_bytes",
    }


async def test_what_workers_counted_is_exposed_for_their_pool(async_client: Any, redis_client: Any) -> None:
    PoolTotals(redis_client, MODEL).add({Series("scored_pairs_total", (("class", "batch"),)): 7.0})
    assert (await exposed(async_client))[f"rerankq_pool_scored_pairs_total class=batch model={MODEL}"] == 7


async def test_redis_and_dead_letters_are_exposed(async_client: Any, redis_client: Any) -> None:
    redis_client.lpush(job_keys.DEAD_LETTERS, "one", "two")
    redis_client.hset(webhook_keys.COUNTS, "failed", 3)
    redis_client.config_set("maxmemory", 1 << 30)
    try:
        found = await exposed(async_client)
    finally:
        redis_client.config_set("maxmemory", 0)
    assert found["rerankq_dead_letters"] == 2
    assert found["rerankq_webhook_deliveries_total outcome=failed"] == 3
    assert found["rerankq_unfinished_batches"] == 0
    assert found["rerankq_redis_memory_limit_bytes"] == 1 << 30
    assert found["rerankq_redis_memory_bytes"] > 100_000


async def test_nothing_is_exposed_without_redis() -> None:
    client = connect_async(dead_redis_url())
    with pytest.raises(StoreUnavailable):
        await reader(client).read()
    await client.aclose()


@pytest.mark.parametrize(
    ("accept", "content_type", "last_line"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8", None),
        ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text; version=1.0.0", "# EOF"),
    ],
)
def test_the_format_is_the_one_that_the_client_accepts(accept: str, content_type: str, last_line: str | None) -> None:
    body, given = Exposition(CollectorRegistry(), ProcessGroup()).render(StoreReadings(pools={}), accept)
    assert given.startswith(content_type)
    assert last_line in (None, body.decode().splitlines()[-1])
    assert (
        samples(Exposition(CollectorRegistry(), ProcessGroup()).render(StoreReadings(pools={}))[0])[
            "process_resident_memory_bytes"
        ]
        > 1_000_000
    )
