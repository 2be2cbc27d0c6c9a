"""Writes all metrics of the API in the format that Prometheus asks for."""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

from api.metrics.pools import StoreReadings, store_families
from api.metrics.shared_files import shared_registry
from api.processes.group import ProcessGroup
from api.processes.usage import process_families


class Exposition:
    """The metrics of the processes that serve one address, whichever of them is scraped.

    APIs on other machines expose the same values of Redis, but their own requests.
    """

    def __init__(self, registry: CollectorRegistry, group: ProcessGroup) -> None:
        """`registry` has the counts of this process, which are exposed unless processes share theirs."""
        self._registry = registry
        self._group = group

    def render(self, read: StoreReadings, accept: str = "") -> tuple[bytes, str]:
        """All metrics and their content type, for a request's Accept header. Takes milliseconds."""
        encode, content_type = choose_encoder(accept)
        return encode(_Families(self._families(read))), content_type

    def _families(self, read: StoreReadings) -> Iterator[Metric]:
        yield from store_families(read)
        yield from process_families(self._group)
        yield from (shared_registry() or self._registry).collect()


class _Families:
    """A registry of ready-made metric families."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
