"""The metrics that are read from Redis when Prometheus scrapes: pools, batches, Redis itself, webhooks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.metrics_core import Metric

from api.metrics import definitions as metrics
from api.pool_monitor import PoolSnapshot
from shared.contracts import WorkClass
from shared.ledger.delivery_ledger import OUTCOMES
from shared.metrics.definitions import Definition
from shared.metrics.pool_totals import Series, total_families
from shared.pools.heartbeats import WorkerState


@dataclass(frozen=True, slots=True)
class StoreReadings:
    """What was read for one scrape. Memory is in bytes, None without a limit."""

    pools: Mapping[str, PoolSnapshot]
    totals: Mapping[str, Mapping[Series, float]] = field(default_factory=dict)
    dead_letters: int = 0
    unfinished_batches: int = 0
    memory: int = 0
    memory_limit: int | None = None
    webhooks: Mapping[str, int] = field(default_factory=dict)


def store_families(read: StoreReadings) -> Iterator[Metric]:
    """The families of one scrape."""
    yield from _pool_families(read.pools)
    yield from total_families(read.totals)
    yield _family(metrics.DEAD_LETTERS, {(): read.dead_letters})
    yield _family(metrics.BATCHES, {(): read.unfinished_batches})
    yield _family(metrics.STORE_MEMORY, {(): read.memory})
    yield _family(metrics.STORE_LIMIT, {(): read.memory_limit})
    yield _family(metrics.WEBHOOKS, {(outcome,): read.webhooks.get(outcome, 0) for outcome in OUTCOMES})


def _pool_families(pools: Mapping[str, PoolSnapshot]) -> Iterator[Metric]:
    for definition, unit in (
        (metrics.POOL_JOBS, "jobs"),
        (metrics.POOL_PAIRS, "pairs"),
        (metrics.POOL_TOKENS, "tokens"),
    ):
        yield _family(
            definition,
            {
                (model, work_class, state): getattr(load, f"{state}_{unit}")
                for model, pool in pools.items()
                for work_class, load in (
                    (WorkClass.INTERACTIVE, pool.signals.interactive),
                    (WorkClass.BATCH, pool.signals.batch),
                )
                for state in ("queued", "running")
            },
        )
    states = (WorkerState.STARTING, WorkerState.READY, WorkerState.DRAINING)
    yield _family(
        metrics.POOL_WORKERS,
        {(model, state): getattr(pool.signals, state) for model, pool in pools.items() for state in states},
    )
    signals = {model: pool.signals for model, pool in pools.items()}
    yield _family(metrics.POOL_DESIRED, {(model,): pool.decision.desired for model, pool in pools.items()})
    yield _family(metrics.POOL_SHARDS, {(model,): pool.shards for model, pool in signals.items()})
    yield _family(metrics.POOL_OLDEST, {(model,): pool.oldest_seconds for model, pool in signals.items()})
    yield _family(metrics.POOL_IDLE, {(model,): pool.idle_seconds for model, pool in signals.items()})
    yield _family(metrics.POOL_RATE, {(model,): pool.tokens_per_second for model, pool in signals.items()})
    yield _family(metrics.POOL_START, {(model,): pool.start_seconds for model, pool in signals.items()})
    yield _family(metrics.POOL_FAILED_STARTS, {(model,): pool.failures for model, pool in signals.items()})


def _family(definition: Definition, values: Mapping[tuple[str, ...], float | None]) -> Metric:
    """A family with a sample for each value that is known."""
    family = definition.family()
    for labels, value in values.items():
        if value is not None:
            family.add_metric(labels, value)  # type: ignore[attr-defined]
    return family
