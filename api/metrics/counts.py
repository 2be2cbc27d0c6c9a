"""Counts what an API process does. Counting costs a microsecond or two, and never waits."""

import asyncio
import math
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

from api.metrics import definitions as metrics
from shared.contracts import WorkClass
from shared.errors import InternalError, Overloaded, RateLimited, RerankqError
from shared.tracing import current_traceparent, is_tracing, trace_id_of

DISCONNECTED = "disconnected"
"""The outcome of a request whose client did not wait for it."""
LOAD_REASONS = ("wait", "waiting", "pending_tokens", "pending_jobs", "memory")
"""Why requests are refused whatever their key; the other reasons are limits of a key."""


class ServiceCounts:
    """The counters and histograms of one API process, or of the batch runner."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        registry = registry or CollectorRegistry()
        self._http_requests = metrics.HTTP_REQUESTS.counter(registry)
        self._http_seconds = metrics.HTTP_SECONDS.histogram(registry)
        self._requests = metrics.REQUESTS.counter(registry)
        self._request_seconds = metrics.REQUEST_SECONDS.histogram(registry)
        self._pairs = metrics.PAIRS.counter(registry)
        self._cached_pairs = metrics.CACHED_PAIRS.counter(registry)
        self._refusals = metrics.REFUSALS.counter(registry)
        self._reconciled = metrics.RECONCILED.counter(registry)
        self._reconciler_round = metrics.RECONCILER_ROUND.gauge(registry, multiprocess_mode="max")
        self._round_trips = metrics.ROUND_TRIPS.counter(registry)
        self._batch_rows = metrics.BATCH_ROWS.counter(registry)
        self.exemplars: dict[tuple[str, str], Exemplar] = {}
        """The last traced request of a waiting caller, by model and by the bound of its bucket."""
        self._children: dict[tuple[Any, ...], Any] = {}
        # From the start at 0: the first increase would otherwise be no increase for Prometheus.
        for reason in LOAD_REASONS:
            self._of(self._refusals, reason)
        for outcome in ("ok", "failed"):
            self._of(self._batch_rows, outcome)

    def prepare(self, models: Iterable[str]) -> None:
        """Begin the counts of these models at 0."""
        for model in models:
            self._of(self._cached_pairs, model)
            self._of(self._request_seconds, model)
            for work_class in WorkClass:
                self._of(self._pairs, model, work_class)

    def response(self, route: str, status: int, seconds: float) -> None:
        """Count an HTTP response; `route` is empty when none matched."""
        self._of(self._http_requests, route, str(status)).inc()
        self._of(self._http_seconds, route).observe(seconds)

    @contextmanager
    def request(self, dialect: str, work_class: WorkClass) -> Iterator[None]:
        """Count a rerank request by what the block raises."""
        outcome = InternalError.code
        try:
            yield
            outcome = "ok"
        except asyncio.CancelledError:
            outcome = DISCONNECTED
            raise
        except RerankqError as error:
            outcome = error.code
            if isinstance(error, Overloaded | RateLimited):
                self._of(self._refusals, error.reason).inc()
            raise
        finally:
            self._of(self._requests, dialect, work_class, outcome).inc()

    def waited(self, model: str, started: float) -> None:
        """Observe the time of a waiting caller since `started`, of time.perf_counter."""
        seconds = perf_counter() - started
        self._of(self._request_seconds, model).observe(seconds)
        if is_tracing():
            buckets = (*metrics.REQUEST_SECONDS.buckets, math.inf)
            bound = floatToGoString(buckets[bisect_left(buckets, seconds)])  # type: ignore[no-untyped-call]
            trace = {"trace_id": trace_id_of(current_traceparent())}
            self.exemplars[model, bound] = Exemplar(trace, seconds, time.time())

    def accepted(self, model: str, work_class: WorkClass, pairs: int, cached: int) -> None:
        """Count the pairs of an accepted request, and those of them whose score was cached."""
        self._of(self._pairs, model, work_class).inc(pairs)
        if cached:
            self._of(self._cached_pairs, model).inc(cached)

    def reconciled(self, model: str, action: str, count: int) -> None:
        self._of(self._reconciled, model, action).inc(count)

    def reconciler_round(self) -> None:
        self._reconciler_round.set_to_current_time()

    def round_trip(self) -> None:
        self._round_trips.inc()

    def batch_rows(self, outcome: str, count: int) -> None:
        if count:
            self._of(self._batch_rows, outcome).inc(count)

    def _of(self, metric: Any, *labels: str) -> Any:
        """The child of a metric. Kept here, since `labels` takes a lock and builds a key of its own."""
        key = (metric, *labels)
        if (child := self._children.get(key)) is None:
            child = self._children[key] = metric.labels(*labels)
        return child
