"""What a load is, and what came of it: the two shapes that cross the pipe to the load generator's process.

Owns their fields and how latencies become percentiles. Knows no socket and no server.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Self


class Freshness(StrEnum):
    """What of a request was never sent before."""

    ALL = "all"
    QUERY = "query"
    """The documents are the same in every request."""
    NOTHING = "nothing"
    """Every request is the same."""


@dataclass(frozen=True, slots=True)
class Load:
    """N connections, each sending its next request when the last one is answered.

    `vocabulary` is the model's folder that the words come from. `first` is the serial number of the first request;
    no two loads of a run share one. Sending ends after `seconds`, or after `requests` (0: no such end); what is on
    its way is then waited for, up to `timeout` seconds. `warm_up` seconds of the same go before and do not count.
    `respond_async` asks for jobs: an answer is then a 202.
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
    seed: int = 0

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        return cls(**values | {"fresh": Freshness(values["fresh"])})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a load found. Latencies and `outside_ms` (latency less the engine's time) are milliseconds.

    `seconds` is from the first request to the last answer: all that was sent was computed within it, so that the
    rate does not depend on how answers bunch at an edge. `cpu_us` is what one request cost the generator itself,
    microseconds. `errors` has the first few, `failed` their number. `last_job` is the path of the last 202's job.
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
    """p50, p90, p99, max and mean, in the values' own unit; empty for none."""
    if not values:
        return {}
    ordered = sorted(values)
    ranks = {f"p{percent}": ordered[math.ceil(percent / 100 * len(ordered)) - 1] for percent in (50, 90, 99)}
    return ranks | {"max": ordered[-1], "mean": sum(ordered) / len(ordered)}
