"""A metric's definition. From it come the object that counts, the exposed family and a line of docs/metrics.md."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

# Without the times at which each series was created: Prometheus does not need them.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Kind(StrEnum):
    """A counter only grows, a gauge is a value now, a histogram counts values by size."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


def powers_of_two(first: int, last: int) -> tuple[float, ...]:
    """Bucket bounds from 2^first to 2^last. Prometheus's native histograms have the same bounds (schema 0)."""
    return tuple(2.0**exponent for exponent in range(first, last + 1))


SECONDS = powers_of_two(-10, 6)
"""From a millisecond to a minute."""


@dataclass(frozen=True, slots=True)
class Definition:
    """One metric. `name` is without the suffix `_total`; `buckets` are upper bounds, of a histogram only."""

    name: str
    kind: Kind
    documentation: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def exposed_name(self) -> str:
        """The name in queries; a histogram has three, with `_bucket`, `_sum` and `_count`."""
        return f"{self.name}_total" if self.kind is Kind.COUNTER else self.name

    def counter(self, registry: CollectorRegistry) -> Counter:
        """The object that counts."""
        return Counter(self.name, self.documentation, self.labels, registry=registry)

    def histogram(self, registry: CollectorRegistry) -> Histogram:
        """The object that observes values."""
        return Histogram(self.name, self.documentation, self.labels, registry=registry, buckets=self.buckets)

    def gauge(self, registry: CollectorRegistry, **options: Any) -> Gauge:
        """The object that holds a value."""
        return Gauge(self.name, self.documentation, self.labels, registry=registry, **options)

    def family(self, more_labels: Sequence[str] = ()) -> Metric:
        """An empty family, to which samples are added when Prometheus scrapes."""
        labels = [*more_labels, *self.labels]
        match self.kind:
            case Kind.COUNTER:
                return CounterMetricFamily(self.name, self.documentation, labels=labels)
            case Kind.GAUGE:
                return GaugeMetricFamily(self.name, self.documentation, labels=labels)
            case Kind.HISTOGRAM:
                return HistogramMetricFamily(self.name, self.documentation, labels=labels)


def counter(name: str, documentation: str, *labels: str) -> Definition:
    return Definition(name, Kind.COUNTER, documentation, labels)


def gauge(name: str, documentation: str, *labels: str) -> Definition:
    return Definition(name, Kind.GAUGE, documentation, labels)


def histogram(name: str, documentation: str, *labels: str, buckets: tuple[float, ...] = SECONDS) -> Definition:
    return Definition(name, Kind.HISTOGRAM, documentation, labels, buckets)
