"""Traffic patterns of the simulation: generated from a seed, or read from a file of recorded arrivals."""

import csv
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.contracts import WorkClass

HOUR = 3600.0
_TOKENS_PER_PAIR = 400
_COLUMNS = ["seconds", "pairs", "tokens", "class"]


@dataclass(frozen=True, slots=True)
class Arrival:
    """One job: `at` is its arrival in seconds from the start, `tokens` its estimated size."""

    at: float
    pairs: int
    tokens: int
    work_class: WorkClass


@dataclass(frozen=True, slots=True)
class Traffic:
    """A traffic pattern. `seconds` is its length, `max_workers` the upper limit of a pool that serves it."""

    name: str
    title: str
    seconds: float
    max_workers: int
    arrivals: Callable[[random.Random], Iterator[Arrival]]

    def generate(self, seed: int) -> list[Arrival]:
        """Return the arrivals in order; they depend only on the seed."""
        return sorted(self.arrivals(random.Random(f"{seed} {self.name}")), key=lambda arrival: arrival.at)


def _call(random_numbers: random.Random, at: float) -> Arrival:
    """One interactive call with 10 to 30 documents."""
    pairs = random_numbers.randint(10, 30)
    return Arrival(at, pairs, pairs * _TOKENS_PER_PAIR, WorkClass.INTERACTIVE)


def _poisson(
    random_numbers: random.Random, seconds: float, rate: Callable[[float], float], highest: float
) -> Iterator[Arrival]:
    """Independent calls, `rate(at)` per second; `highest` is an upper bound of the rate."""
    at = 0.0
    while (at := at + random_numbers.expovariate(highest)) < seconds:
        if random_numbers.random() * highest < rate(at):
            yield _call(random_numbers, at)


def _steady(random_numbers: random.Random) -> Iterator[Arrival]:
    yield from _poisson(random_numbers, 3 * HOUR, lambda at: 10.0 if at < 2 * HOUR else 0.0, 10.0)


def _diurnal(random_numbers: random.Random) -> Iterator[Arrival]:
    """The rate is highest at 14:00 and close to zero at 2:00."""
    yield from _poisson(
        random_numbers, 24 * HOUR, lambda at: 8.0 * ((1 - math.cos((at / HOUR - 2) / 12 * math.pi)) / 2) ** 3, 8.0
    )


def _bursty(random_numbers: random.Random) -> Iterator[Arrival]:
    """A call every 50 s, and about every 20 minutes a burst of 3,000 calls within 20 s."""
    yield from _poisson(random_numbers, 6 * HOUR, lambda at: 0.02, 0.02)
    at = 0.0
    while (at := at + random_numbers.expovariate(1 / 1200)) < 5.5 * HOUR:
        for _ in range(3000):
            yield _call(random_numbers, at + random_numbers.random() * 20)


def _nightly(random_numbers: random.Random) -> Iterator[Arrival]:
    """Interactive calls from 8:00 to 20:00; at 2:00, 400 batch jobs of 2,000 pairs each."""
    yield from _poisson(random_numbers, 24 * HOUR, lambda at: 0.1 if 8 <= at / HOUR < 20 else 0.0, 0.1)
    for _ in range(400):
        yield Arrival(2 * HOUR + random_numbers.random() * 60, 2000, 2000 * _TOKENS_PER_PAIR, WorkClass.BATCH)


def _hourly(random_numbers: random.Random) -> Iterator[Arrival]:
    for hour in range(48):
        yield _call(random_numbers, (hour + random_numbers.random()) * HOUR)


def _surge(random_numbers: random.Random) -> Iterator[Arrival]:
    """The rate grows from zero to 250 calls per second within half an hour, and falls again."""
    yield from _poisson(random_numbers, 1.5 * HOUR, lambda at: 250 * max(1 - abs(at / HOUR - 0.5) / 0.5, 0.0), 250.0)


PATTERNS = {
    traffic.name: traffic
    for traffic in (
        Traffic("steady", "10 calls per second for two hours", 3 * HOUR, 40, _steady),
        Traffic("diurnal", "a day: up to 8 calls per second, close to none at night", 24 * HOUR, 40, _diurnal),
        Traffic("bursty", "about every 20 minutes, 3,000 calls within 20 s", 6 * HOUR, 200, _bursty),
        Traffic(
            "nightly", "800,000 pairs of batch work at night, one call every 10 s by day", 24 * HOUR, 200, _nightly
        ),
        Traffic("hourly", "one call an hour", 48 * HOUR, 4, _hourly),
        Traffic("surge", "up to 250 calls per second in half an hour, and down again", 1.5 * HOUR, 400, _surge),
    )
}


def busiest_minute(arrivals: Sequence[Arrival]) -> int:
    """Return the most tokens of interactive work that arrive within one minute."""
    minutes: Counter[int] = Counter()
    for arrival in arrivals:
        if arrival.work_class is WorkClass.INTERACTIVE:
            minutes[int(arrival.at // 60)] += arrival.tokens
    return max(minutes.values(), default=0)


def recorded(path: Path, max_workers: int) -> Traffic:
    """Read arrivals from a CSV file with the columns seconds, pairs, tokens and class (interactive or batch).

    Lines that begin with # are comments. Raises ValueError, which names the line, and OSError.
    """
    with path.open(newline="") as file:
        try:
            arrivals = list(_read(file))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    if not arrivals:
        raise ValueError(f"{path}: the file has no arrivals")
    length = max(arrival.at for arrival in arrivals) + HOUR
    return Traffic(path.stem, f"{len(arrivals)} recorded jobs", length, max_workers, lambda _: iter(arrivals))


def _read(lines: Iterable[str]) -> Iterator[Arrival]:
    kept = [(number, line) for number, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
    rows = csv.reader(line for _, line in kept)
    for (number, _), row in zip(kept, rows, strict=True):
        if row == _COLUMNS:
            continue
        try:
            at, pairs, tokens, work_class = row
            arrival = Arrival(float(at), int(pairs), int(tokens), WorkClass(work_class))
        except ValueError as error:
            raise ValueError(f"line {number}: expected {','.join(_COLUMNS)}, got {','.join(row)!r}") from error
        if not (0 <= arrival.at < math.inf and arrival.pairs > 0 and arrival.tokens > 0):
            raise ValueError(f"line {number}: seconds must be at least 0, pairs and tokens above 0")
        yield arrival
