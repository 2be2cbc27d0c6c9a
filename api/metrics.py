"""What Prometheus is told: the pools as /v1/pools has them, this process's requests, and the process itself.

Counting a request is a few additions; everything else happens when somebody looks. Every API process tells of the same
pools, and of its own requests.
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
"""Upper bounds, in seconds."""


class Metrics:
    """One API process's."""

    def __init__(self) -> None:
        self._requests: dict[tuple[str, int], int] = {}
        self._seconds: dict[str, list[float]] = {}
        """For each path the requests in each bucket, those beyond the last one, and the sum of their seconds."""

    def observe(self, path: str, status: int, seconds: float) -> None:
        """A request was answered. `path` is its route's, or empty: what a caller made up is no series of its own."""
        self._requests[path, status] = self._requests.get((path, status), 0) + 1
        if (times := self._seconds.get(path)) is None:
            times = self._seconds[path] = [0.0] * (len(BUCKETS) + 2)
        times[bisect_left(BUCKETS, seconds)] += 1
        times[-1] += seconds

    def render(self, pools: Mapping[str, PoolSnapshot]) -> bytes:
        """All of it in Prometheus's text format."""
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        registry.register(_Families([*_pool_families(pools), *self._request_families()]))
        return generate_latest(registry)

    def _request_families(self) -> Iterator[Metric]:
        requests = CounterMetricFamily("rerankq_http_requests", "Requests answered", labels=["path", "status"])
        for (path, status), count in self._requests.items():
            requests.add_metric([path, str(status)], count)
        yield requests
        seconds = HistogramMetricFamily(
            "rerankq_http_request_seconds", "From a request's first byte to its answer's", labels=["path"]
        )
        for path, (*counts, total) in self._seconds.items():
            bounds = [*map(str, BUCKETS), "+Inf"]
            below = [sum(counts[: place + 1]) for place in range(len(bounds))]
            seconds.add_metric([path], list(zip(bounds, below, strict=True)), total)
        yield seconds


class _Families:
    """What a registry collects from."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def _pool_families(pools: Mapping[str, PoolSnapshot]) -> Iterator[Metric]:
    yield from _load_families(pools)
    workers = GaugeMetricFamily("rerankq_pool_workers", "Workers of this state", labels=["model", "state"])
    for model, pool in pools.items():
        for state in (WorkerState.STARTING, WorkerState.READY, WorkerState.DRAINING):
            workers.add_metric([model, state], getattr(pool.signals, state))
    yield workers
    signals = {model: pool.signals for model, pool in pools.items()}
    yield _gauge("shards", "Shards that are not done", {model: pool.shards for model, pool in signals.items()})
    yield _gauge(
        "oldest_seconds", "Since the oldest job came", {model: p.oldest_seconds for model, p in signals.items()}
    )
    yield _gauge("idle_seconds", "Since a job came or ended", {model: p.idle_seconds for model, p in signals.items()})
    yield _gauge("tokens_per_second", "Of a busy worker", {model: p.tokens_per_second for model, p in signals.items()})
    yield _gauge("start_seconds", "Of a worker's start", {model: p.start_seconds for model, p in signals.items()})
    yield _gauge("failed_starts", "Since a worker was ready", {model: p.failures for model, p in signals.items()})
    yield _gauge(
        "desired_workers", "Workers asked for", {model: pool.decision.desired for model, pool in pools.items()}
    )


def _load_families(pools: Mapping[str, PoolSnapshot]) -> Iterator[Metric]:
    """Jobs, pairs and tokens, by class of work, queued or running."""
    for what in ("jobs", "pairs", "tokens"):
        family = GaugeMetricFamily(
            f"rerankq_pool_{what}", f"{what.capitalize()} to be done", labels=["model", "class", "state"]
        )
        for model, pool in pools.items():
            loads = {WorkClass.INTERACTIVE: pool.signals.interactive, WorkClass.BATCH: pool.signals.batch}
            for work_class, load in loads.items():
                for state in ("queued", "running"):
                    family.add_metric([model, work_class, state], getattr(load, f"{state}_{what}"))
        yield family


def _gauge(name: str, text: str, values: Mapping[str, float | None]) -> Metric:
    """One number for each model; none where it is not known."""
    family = GaugeMetricFamily(f"rerankq_pool_{name}", text, labels=["model"])
    for model, value in values.items():
        if value is not None:
            family.add_metric([model], value)
    return family
