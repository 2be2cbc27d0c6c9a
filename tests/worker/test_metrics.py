"""What a worker counts, and how it reaches its pool's totals."""

from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from shared.contracts import ScoreScale, ShardScores, WorkClass
from shared.ledger.verdicts import FinishVerdict
from shared.metrics.pool_totals import PoolTotals, Series, read_totals, total_families
from shared.store.client import connect, connect_async
from tests.shared.support import MODEL, dead_redis_url, make_lease
from worker.dispatch.executor import ShardOutcome, ShardReport
from worker.engines.base import EngineStep
from worker.metrics import TotalsPusher, WorkerMetrics

INTERACTIVE = WorkClass.INTERACTIVE


def report(outcome: ShardOutcome = ShardOutcome.SCORED, scores: ShardScores | None = None) -> ShardReport:
    return ShardReport(make_lease(), INTERACTIVE, outcome, scores)


def scored() -> ShardReport:
    scores = ShardScores(
        scores=[0.5, None, 0.25],
        scale=ScoreScale.SIMILARITY,
        errors={1: "the document is empty"},
        truncated=[0],
        prompt_tokens=70,
        queue_ms=3.0,
        inference_ms=12.0,
    )
    return report(scores=scores)


def value(metrics: WorkerMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"rerankq_worker_{name}", labels)


def test_a_scored_shard_counts_its_pairs_tokens_and_times() -> None:
    metrics = WorkerMetrics()
    metrics.shard_reported(scored(), FinishVerdict.ACCEPTED)
    interactive = {"class": "interactive"}
    assert value(metrics, "shards_total", **interactive, outcome="scored") == 1
    assert value(metrics, "scored_pairs_total", **interactive) == 2
    assert value(metrics, "prompt_tokens_total", **interactive) == 70
    assert value(metrics, "truncated_pairs_total") == 1
    assert value(metrics, "queue_wait_seconds_sum", **interactive) == pytest.approx(0.003)
    assert value(metrics, "inference_seconds_bucket", **interactive, le="0.015625") == 1
    assert value(metrics, "inference_seconds_bucket", **interactive, le="0.0078125") == 0


def test_scores_that_come_too_late_are_no_pairs() -> None:
    metrics = WorkerMetrics()
    metrics.shard_reported(scored(), FinishVerdict.ENDED)
    assert value(metrics, "rejected_reports_total") == 1
    assert value(metrics, "scored_pairs_total", **{"class": "interactive"}) == 0


def test_a_shard_without_scores_counts_its_outcome() -> None:
    metrics = WorkerMetrics()
    metrics.shard_reported(report(ShardOutcome.RETRY), FinishVerdict.ACCEPTED)
    assert value(metrics, "shards_total", **{"class": "interactive"}, outcome="retry") == 1


def test_steps_lookups_and_starts_are_counted() -> None:
    class Engine:
        on_step: Any = None
        on_lookup: Any = None
        cached_tokens = 32

    metrics, engine = WorkerMetrics(), Engine()
    metrics.watch(engine)  # type: ignore[arg-type]
    engine.on_step(EngineStep(0.01, prompts=3, tokens=90))
    engine.on_lookup(2, 5)
    metrics.shard_reported(scored(), FinishVerdict.ACCEPTED)
    metrics.started({"import": 4.0, "load": 1.0})
    assert value(metrics, "engine_step_prompts_sum") == 3
    assert value(metrics, "engine_step_tokens_sum") == 90
    assert value(metrics, "prefix_cache_tokens_total") == 32
    assert [value(metrics, "embedding_cache_lookups_total", result=each) for each in ("hit", "miss")] == [2, 5]
    assert value(metrics, "start_stage_seconds_sum", stage="import") == 4.0


def test_an_engine_that_reports_nothing_is_no_error() -> None:
    WorkerMetrics().watch(object())  # type: ignore[arg-type]


class TestTotals:
    async def test_the_counts_of_all_workers_add_up(self, redis_url: str) -> None:
        with connect(redis_url) as client:
            for _ in range(2):
                metrics = WorkerMetrics()
                pusher = TotalsPusher(PoolTotals(client, MODEL), metrics.registry)
                for _ in range(3):
                    metrics.shard_reported(scored(), FinishVerdict.ACCEPTED)
                    pusher.push()
                pusher.push()
        text = await exposed(redis_url)
        families = {family.name: family for family in text_string_to_metric_families(text)}
        pairs = {sample.labels["class"]: sample.value for sample in families["rerankq_pool_scored_pairs"].samples}
        assert pairs == {"interactive": 12, "batch": 0}
        inference = [
            sample
            for sample in families["rerankq_pool_inference_seconds"].samples
            if sample.labels == sample.labels | {"model": MODEL, "class": "interactive"}
        ]
        buckets = [sample for sample in inference if sample.name.endswith("_bucket")]
        assert buckets[-1].labels["le"] == "+Inf"
        assert [each.value for each in buckets] == sorted(each.value for each in buckets)
        assert buckets[-1].value == 6

    async def test_a_failed_push_is_made_up_for(self, redis_url: str) -> None:
        metrics = WorkerMetrics()
        with connect(dead_redis_url()) as dead, connect(redis_url) as client:
            totals = PoolTotals(dead, MODEL)
            pusher = TotalsPusher(totals, metrics.registry)
            metrics.shard_reported(scored(), FinishVerdict.ACCEPTED)
            with pytest.raises(Exception, match=r"(?i)connect"):
                pusher.push()
            totals._client = client
            pusher.push()
        assert 'scored_pairs_total{class="interactive",model="' in await exposed(redis_url)

    async def test_what_another_version_wrote_is_skipped(self, redis_url: str) -> None:
        with connect(redis_url) as client:
            totals = PoolTotals(client, MODEL)
            totals.add({Series("scored_pairs_total", (("class", "batch"),)): 1.0, Series("unknown", ()): 2.0})
            client.hset(totals._key, mapping={"no json": "1", "[5]": "x", "{}": "1"})
        assert "unknown" not in await exposed(redis_url)

    async def test_a_pool_without_totals_has_no_samples(self, redis_url: str) -> None:
        assert "{" not in await exposed(redis_url)


async def exposed(redis_url: str) -> str:
    client = connect_async(redis_url)
    try:
        totals = await read_totals(client, [MODEL, "other"])
    finally:
        await client.aclose()
    registry = CollectorRegistry()
    registry.register(Families(total_families(totals)))
    return generate_latest(registry).decode()


class Families:
    def __init__(self, families: list[Any]) -> None:
        self._families = families

    def collect(self) -> list[Any]:
        return self._families
