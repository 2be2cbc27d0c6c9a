"""The load generator's input and output: `Load` and `Outcome`, passed as JSON between processes, and percentiles.

It opens no socket and starts no server.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Self


class Freshness(StrEnum):
    """Which parts of each request differ from every earlier request."""

    ALL = "all"
    QUERY = "query"
    """The documents are the same in every request."""
    NOTHING = "nothing"
    """Every request is the same."""


@dataclass(frozen=True, slots=True)
class Load:
    """A load of `connections` connections. Each sends its next request when it has received the response to the last.

    `vocabulary` is the folder of the model whose tokenizer provides the words. `first` is the serial number of the
    first request; the loads of a run use distinct serial numbers. Sending ends after `seconds`, or after `requests`
    requests (0: no limit); the generator then waits up to `timeout` seconds for responses. `warm_up` seconds of the
    same load run first and are not measured. `respond_async` submits jobs, for which 202 is expected. `truncate` allows
    the server to cut texts that are too long for the model.
    """

    port: int
    model: str
    vocabulary: str
    first: int
    connections: int
    documents: int
    words: int
    seconds: float
    warm_up: float = 1.0
    requests: int = 0
    timeout: float = 120.0
    fresh: Freshness = Freshness.ALL
    respond_async: bool = False
    truncate: bool = False
    seed: int = 0

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        return cls(**values | {"fresh": Freshness(values["fresh"])})


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a load. Latencies and `outside_ms` (latency minus the engine's time) are milliseconds.

    `seconds` is the time from the first request to the last response. All requests were computed within it, so the
    rate does not depend on how responses cluster at the end of a window. `cpu_us` is the generator's own processor
    time for each request, in microseconds. `failed` is the number of errors; `errors` has the first few. `last_job` is
    the path of the job in the last 202 response.
    """

    requests: int
    pairs: int
    seconds: float
    latency_ms: dict[str, float]
    outside_ms: dict[str, float]
    cpu_us: float
    failed: int = 0
    errors: list[str] = field(default_factory=list)
    last_job: str = ""

    @property
    def requests_per_second(self) -> float:
        return self.requests / self.seconds if self.seconds else 0.0

    @property
    def pairs_per_second(self) -> float:
        return self.pairs / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        rates = {"requests_per_second": self.requests_per_second, "pairs_per_second": self.pairs_per_second}
        return asdict(self) | rates


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return p50, p90, p99, max and mean in the unit of the values; empty without values."""
    if not values:
        return {}
    ordered = sorted(values)
    ranks = {f"p{percent}": ordered[math.ceil(percent / 100 * len(ordered)) - 1] for percent in (50, 90, 99)}
    return ranks | {"max": ordered[-1], "mean": sum(ordered) / len(ordered)}
