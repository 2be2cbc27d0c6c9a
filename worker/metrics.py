"""Counts what a worker does, and adds it to its pool's totals.

Owns the worker's registry. Refuses to name anything that a caller chose: labels are classes, outcomes and stages.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from prometheus_client import CollectorRegistry, Counter, Histogram

from shared.contracts import WorkClass
from shared.ledger.verdicts import FinishVerdict
from shared.metrics import work
from shared.metrics.definitions import Definition
from shared.metrics.pool_totals import PoolTotals, Series
from worker.dispatch.executor import ShardOutcome, ShardReport
from worker.engines.base import EngineStep, ScoringEngine
from worker.process.startup import STAGES


class WorkerMetrics:
    """The metrics of one worker. Safe to share between threads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._queue_wait = self._histogram(work.QUEUE_WAIT)
        self._inference = self._histogram(work.INFERENCE)
        self._shards = self._counter(work.SHARDS)
        self._rejected = self._counter(work.REJECTED)
        self._pairs = self._counter(work.PAIRS)
        self._prompt_tokens = self._counter(work.PROMPT_TOKENS)
        self._truncated = self._counter(work.TRUNCATED)
        self._step_seconds = self._histogram(work.STEP_SECONDS)
        self._step_prompts = self._histogram(work.STEP_PROMPTS)
        self._step_tokens = self._histogram(work.STEP_TOKENS)
        self._prefix_tokens = self._counter(work.PREFIX_TOKENS)
        self._cached_tokens: Callable[[], int] = lambda: 0
        self._counted_cached_tokens = 0
        self._embeddings = self._counter(work.EMBEDDINGS)
        self._starts = self._counter(work.STARTS)
        self._start_seconds = self._histogram(work.START_SECONDS)

        # From the start at 0: the first increase would otherwise be no increase for Prometheus.
        for stage in STAGES:
            self._start_seconds.labels(stage)
        for work_class in WorkClass:
            for metric in (self._queue_wait, self._inference, self._pairs, self._prompt_tokens):
                metric.labels(work_class)
            for outcome in ShardOutcome:
                self._shards.labels(work_class, outcome)

    def watch(self, engine: ScoringEngine) -> None:
        """Count the steps and cache lookups of an engine that reports them."""
        if hasattr(engine, "on_step"):
            engine.on_step = self._step
        if hasattr(engine, "cached_tokens"):
            self._cached_tokens = lambda: engine.cached_tokens
        if hasattr(engine, "on_lookup"):
            engine.on_lookup = self._lookup

    def started(self, stages: Mapping[str, float]) -> None:
        """Count a start; `stages` are the seconds of its stages."""
        self._starts.inc()
        for stage, seconds in stages.items():
            self._start_seconds.labels(stage).observe(seconds)

    def shard_reported(self, report: ShardReport, verdict: FinishVerdict) -> None:
        """Count the result of a shard. Scores that the ledger rejected are no pairs: another worker has scored them."""
        work_class = report.work_class
        self._shards.labels(work_class, report.outcome).inc()
        if verdict is not FinishVerdict.ACCEPTED:
            self._rejected.inc()
            return
        if (scores := report.scores) is None:
            return
        self._queue_wait.labels(work_class).observe(scores.queue_ms / 1000)
        self._inference.labels(work_class).observe(scores.inference_ms / 1000)
        self._pairs.labels(work_class).inc(len(scores.scores) - len(scores.errors))
        self._prompt_tokens.labels(work_class).inc(scores.prompt_tokens)
        self._truncated.inc(len(scores.truncated))
        cached = self._cached_tokens()
        self._prefix_tokens.inc(cached - self._counted_cached_tokens)
        self._counted_cached_tokens = cached

    def _step(self, step: EngineStep) -> None:
        self._step_seconds.observe(step.seconds)
        self._step_prompts.observe(step.prompts)
        self._step_tokens.observe(step.tokens)

    def _lookup(self, hits: int, misses: int) -> None:
        self._embeddings.labels("hit").inc(hits)
        self._embeddings.labels("miss").inc(misses)

    def _counter(self, definition: Definition) -> Counter:
        return _own(definition).counter(self.registry)

    def _histogram(self, definition: Definition) -> Histogram:
        return _own(definition).histogram(self.registry)


def _own(definition: Definition) -> Definition:
    return replace(definition, name=work.WORKER_PREFIX + definition.name)


class TotalsPusher:
    """Adds what a registry counted since the last push to the totals of a pool. Raises redis.RedisError."""

    def __init__(self, totals: PoolTotals, registry: CollectorRegistry) -> None:
        self._totals = totals
        self._registry = registry
        self._pushed: dict[Series, float] = {}
        self._lock = threading.Lock()

    def push(self) -> None:
        """Add the differences in one round trip. After a failure, the next push has them, too."""
        with self._lock:
            counted = dict(self._counted())
            # A new series is pushed at 0, too: Prometheus then sees its first increase.
            self._totals.add(
                {
                    series: value - self._pushed.get(series, 0.0)
                    for series, value in counted.items()
                    if self._pushed.get(series) != value
                }
            )
            self._pushed = counted

    def _counted(self) -> Iterator[tuple[Series, float]]:
        for family in self._registry.collect():
            for sample in family.samples:
                if not sample.name.endswith("_created"):
                    name = sample.name.removeprefix(work.WORKER_PREFIX)
                    yield Series(name, tuple(sorted(sample.labels.items()))), sample.value
