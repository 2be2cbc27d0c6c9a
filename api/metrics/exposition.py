"""Writes all metrics of the API in the format that Prometheus asks for."""

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Exemplar, Sample

from api.metrics.definitions import REQUEST_SECONDS
from api.metrics.pools import StoreReadings, store_families
from api.metrics.shared_files import shared_registry
from api.processes.group import ProcessGroup
from api.processes.usage import process_families


class Exposition:
    """The metrics of the processes that serve one address, whichever of them is scraped.

    APIs on other machines expose the same values of Redis, but their own requests.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        group: ProcessGroup,
        exemplars: Mapping[tuple[str, str], Exemplar] = MappingProxyType({}),
    ) -> None:
        """`registry` has the counts of this process, which are exposed unless processes share theirs.

        `exemplars`: see ServiceCounts. They are those of this process, since prometheus-client shares none.
        """
        self._registry = registry
        self._exemplars = exemplars
        self._group = group

    def render(self, read: StoreReadings, accept: str = "") -> tuple[bytes, str]:
        """All metrics and their content type, for a request's Accept header. Takes milliseconds."""
        encode, content_type = choose_encoder(accept)
        return encode(_Families(self._families(read))), content_type

    def _families(self, read: StoreReadings) -> Iterator[Metric]:
        yield from store_families(read)
        yield from process_families(self._group)
        for family in (shared_registry() or self._registry).collect():
            if self._exemplars and family.name == REQUEST_SECONDS.name:
                family.samples = [self._with_exemplar(sample) for sample in family.samples]
            yield family

    def _with_exemplar(self, sample: Sample) -> Sample:
        """The sample of a bucket with a trace whose request is in it."""
        exemplar = self._exemplars.get((sample.labels["model"], sample.labels.get("le", "")))
        return sample if exemplar is None else sample._replace(exemplar=exemplar)


class _Families:
    """A registry of ready-made metric families."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
