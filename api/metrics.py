"""Prometheus metrics: the pools as in /v1/pools, the requests, and the processes themselves.

Requests and processes are summed over the processes that serve one address, whichever of them is scraped. APIs on other
machines report the same pools, but their own requests. Counting a request costs a few additions in memory that the
processes share; the metrics are built when Prometheus scrapes them.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from api.pool_monitor import PoolSnapshot
from api.processes.group import ProcessGroup
from api.processes.usage import process_families
from shared.contracts import WorkClass
from shared.ledger.delivery_ledger import OUTCOMES
from shared.pools.heartbeats import WorkerState

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the histogram's buckets, in seconds."""
_STATUSES = range(100, 600)
_BUCKET = len(_STATUSES)
_SUM = _BUCKET + len(BUCKETS) + 1
"""Where in a path's row the histogram is, after a count for each status, and the sum of its seconds."""
_COLUMNS = _SUM + 1


class Metrics:
    """The metrics of the processes that serve one address."""

    def __init__(self, paths: Iterable[str] = (), group: ProcessGroup | None = None) -> None:
        """`paths` are the paths of all routes. Create it before the processes of the group are forked."""
        self._group = group or ProcessGroup()
        # Paths that clients make up add no series: they are counted in the first row.
        self._rows = {path: row * _COLUMNS for row, path in enumerate(dict.fromkeys(("", *paths)))}
        # One flat table for each process. The kernel provides memory only for the parts that are used.
        self._counts = self._group.shared_numbers(len(self._rows) * _COLUMNS)
        self._own = self._counts[self._group.number]

    def join(self) -> None:
        """Count for this process from now on. Call it in each process after it has joined the group."""
        self._own = self._counts[self._group.number]

    def observe(self, path: str, status: int, seconds: float) -> None:
        """Count a response. `path` is the path of the route, empty when no route matched."""
        row, counts = self._rows.get(path, 0), self._own
        counts[row + status - _STATUSES.start] += 1
        counts[row + _BUCKET + bisect_left(BUCKETS, seconds)] += 1
        counts[row + _SUM] += seconds

    def render(self, pools: Mapping[str, PoolSnapshot], webhooks: Mapping[str, int] = MappingProxyType({})) -> bytes:
        """All metrics in Prometheus's text format. `webhooks`: how many deliveries had each outcome so far."""
        registry = CollectorRegistry()
        families = [*_pool_families(pools), *process_families(self._group), *self._request_families()]
        families.append(_webhook_family(webhooks))
        registry.register(_Families(families))
        return generate_latest(registry)

    def _request_families(self) -> Iterator[Metric]:
        requests = CounterMetricFamily("rerankq_http_requests", "HTTP responses sent", labels=["path", "status"])
        seconds = HistogramMetricFamily(
            "rerankq_http_request_seconds",
            "Seconds from the arrival of a request to the start of its response",
            labels=["path"],
        )
        for path in self._rows:
            *counts, total = self._totals(path, _BUCKET, _COLUMNS)
            if not any(counts):
                continue
            bounds = [*map(str, BUCKETS), "+Inf"]
            cumulative = [sum(counts[: bucket + 1]) for bucket in range(len(bounds))]
            seconds.add_metric([path], list(zip(bounds, cumulative, strict=True)), total)
            for status, count in zip(_STATUSES, self._totals(path, 0, _BUCKET), strict=True):
                if count:
                    requests.add_metric([path, str(status)], count)
        yield requests
        yield seconds

    def _totals(self, path: str, first: int, end: int) -> list[float]:
        """The sums over all processes of some columns of a path's row."""
        row = self._rows[path]
        return [sum(each) for each in zip(*(counts[row + first : row + end] for counts in self._counts), strict=True)]


class _Families:
    """A collector of ready-made metric families."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def _webhook_family(outcomes: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily("rerankq_webhook_deliveries", "Outcomes of webhook deliveries", labels=["outcome"])
    for outcome in OUTCOMES:
        family.add_metric([outcome], outcomes.get(outcome, 0))
    return family


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
