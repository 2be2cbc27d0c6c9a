"""Prometheus metrics: the pools as in /v1/pools, this process's requests, and the process itself.

Every API process reports the same pools, but only its own requests. Counting a request costs a few additions; the
metrics are built when Prometheus scrapes them.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from api.pool_monitor import PoolSnapshot
from shared.contracts import WorkClass
from shared.pools.heartbeats import WorkerState

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the histogram's buckets, in seconds."""


class Metrics:
    """The metrics of one API process."""

    def __init__(self) -> None:
        self._requests: dict[tuple[str, int], int] = {}
        self._seconds: dict[str, list[float]] = {}
        """Per path: the requests in each bucket and beyond the last one, and at the end the sum of their seconds."""

    def observe(self, path: str, status: int, seconds: float) -> None:
        """Count a response.

        `path` is the path of the route, empty when no route matched: paths that clients make up add no series.
        """
        self._requests[path, status] = self._requests.get((path, status), 0) + 1
        if (histogram := self._seconds.get(path)) is None:
            histogram = self._seconds[path] = [0.0] * (len(BUCKETS) + 2)
        histogram[bisect_left(BUCKETS, seconds)] += 1
        histogram[-1] += seconds

    def render(self, pools: Mapping[str, PoolSnapshot]) -> bytes:
        """All metrics in Prometheus's text format."""
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        registry.register(_Families([*_pool_families(pools), *self._request_families()]))
        return generate_latest(registry)

    def _request_families(self) -> Iterator[Metric]:
        requests = CounterMetricFamily("rerankq_http_requests", "HTTP responses sent", labels=["path", "status"])
        for (path, status), count in self._requests.items():
            requests.add_metric([path, str(status)], count)
        yield requests
        seconds = HistogramMetricFamily(
            "rerankq_http_request_seconds",
            "Seconds from the arrival of a request to the start of its response",
            labels=["path"],
        )
        for path, (*counts, total) in self._seconds.items():
            bounds = [*map(str, BUCKETS), "+Inf"]
            cumulative = [sum(counts[: bucket + 1]) for bucket in range(len(bounds))]
            seconds.add_metric([path], list(zip(bounds, cumulative, strict=True)), total)
        yield seconds


class _Families:
    """A collector of ready-made metric families."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def _pool_families(pools: Mapping[str, PoolSnapshot]) -> Iterator[Metric]:
    yield from _load_families(pools)
    workers = GaugeMetricFamily("rerankq_pool_workers", "Workers by state", labels=["model", "state"])
    for model, pool in pools.items():
        for state in (WorkerState.STARTING, WorkerState.READY, WorkerState.DRAINING):
            workers.add_metric([model, state], getattr(pool.signals, state))
    yield workers
    signals = {model: pool.signals for model, pool in pools.items()}
    yield _gauge("shards", "Shards queued or running", {model: pool.shards for model, pool in signals.items()})
    yield _gauge(
        "oldest_seconds", "Age of the oldest unfinished job", {model: p.oldest_seconds for model, p in signals.items()}
    )
    yield _gauge(
        "idle_seconds",
        "Seconds since a job was submitted or ended",
        {model: p.idle_seconds for model, p in signals.items()},
    )
    yield _gauge(
        "tokens_per_second", "Throughput of a busy worker", {model: p.tokens_per_second for model, p in signals.items()}
    )
    yield _gauge(
        "start_seconds", "Duration of a worker's start", {model: p.start_seconds for model, p in signals.items()}
    )
    yield _gauge(
        "failed_starts",
        "Failed starts since a worker was last ready",
        {model: p.failures for model, p in signals.items()},
    )
    yield _gauge(
        "desired_workers",
        "Workers that the pool should have",
        {model: pool.decision.desired for model, pool in pools.items()},
    )


def _load_families(pools: Mapping[str, PoolSnapshot]) -> Iterator[Metric]:
    """Jobs, pairs and tokens, by class and by state, queued or running."""
    for unit in ("jobs", "pairs", "tokens"):
        family = GaugeMetricFamily(f"rerankq_pool_{unit}", f"Unfinished {unit}", labels=["model", "class", "state"])
        for model, pool in pools.items():
            loads = {WorkClass.INTERACTIVE: pool.signals.interactive, WorkClass.BATCH: pool.signals.batch}
            for work_class, load in loads.items():
                for state in ("queued", "running"):
                    family.add_metric([model, work_class, state], getattr(load, f"{state}_{unit}"))
        yield family


def _gauge(name: str, documentation: str, values: Mapping[str, float | None]) -> Metric:
    """One sample per model; none where the value is unknown."""
    family = GaugeMetricFamily(f"rerankq_pool_{name}", documentation, labels=["model"])
    for model, value in values.items():
        if value is not None:
            family.add_metric([model], value)
    return family
