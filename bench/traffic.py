"""Who asks when: made patterns of arrivals, drawn from a seed, and recorded ones from a file. Runs nothing."""

import csv
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.contracts import WorkClass

HOUR = 3600.0
_TOKENS_A_PAIR = 400
_COLUMNS = ["seconds", "pairs", "tokens", "class"]


@dataclass(frozen=True, slots=True)
class Arrival:
    """One job: when it comes, in seconds from the start, and how much it is, in estimated tokens."""

    at: float
    pairs: int
    tokens: int
    work_class: WorkClass


@dataclass(frozen=True, slots=True)
class Traffic:
    """A pattern. `seconds` is its length; `max_workers` is what an operator would allow a pool that serves it."""

    name: str
    title: str
    seconds: float
    max_workers: int
    arrivals: Callable[[random.Random], Iterator[Arrival]]

    def drawn(self, seed: int) -> list[Arrival]:
        """The arrivals, in order; the same for the same seed."""
        return sorted(self.arrivals(random.Random(f"{seed} {self.name}")), key=lambda arrival: arrival.at)


def _call(random_numbers: random.Random, at: float) -> Arrival:
    """A search's candidates: 10 to 30 of them."""
    pairs = random_numbers.randint(10, 30)
    return Arrival(at, pairs, pairs * _TOKENS_A_PAIR, WorkClass.INTERACTIVE)


def _poisson(
    random_numbers: random.Random, seconds: float, rate: Callable[[float], float], highest: float
) -> Iterator[Arrival]:
    """Calls that know nothing of each other, `rate(at)` of them a second, never more than `highest`."""
    at = 0.0
    while (at := at + random_numbers.expovariate(highest)) < seconds:
        if random_numbers.random() * highest < rate(at):
            yield _call(random_numbers, at)


def _steady(random_numbers: random.Random) -> Iterator[Arrival]:
    yield from _poisson(random_numbers, 3 * HOUR, lambda at: 10.0 if at < 2 * HOUR else 0.0, 10.0)


def _diurnal(random_numbers: random.Random) -> Iterator[Arrival]:
    """Most at two in the afternoon, hardly any at two at night."""
    yield from _poisson(
        random_numbers, 24 * HOUR, lambda at: 8.0 * ((1 - math.cos((at / HOUR - 2) / 12 * math.pi)) / 2) ** 3, 8.0
    )


def _bursty(random_numbers: random.Random) -> Iterator[Arrival]:
    """A call now and then, and every twenty minutes or so 3,000 of them within 20 s."""
    yield from _poisson(random_numbers, 6 * HOUR, lambda at: 0.02, 0.02)
    at = 0.0
    while (at := at + random_numbers.expovariate(1 / 1200)) < 5.5 * HOUR:
        for _ in range(3000):
            yield _call(random_numbers, at + random_numbers.random() * 20)


def _nightly(random_numbers: random.Random) -> Iterator[Arrival]:
    """Calls by day, from eight to eight; at two at night 400 jobs of 2,000 pairs each, which nobody waits for."""
    yield from _poisson(random_numbers, 24 * HOUR, lambda at: 0.1 if 8 <= at / HOUR < 20 else 0.0, 0.1)
    for _ in range(400):
        yield Arrival(2 * HOUR + random_numbers.random() * 60, 2000, 2000 * _TOKENS_A_PAIR, WorkClass.BATCH)


def _hourly(random_numbers: random.Random) -> Iterator[Arrival]:
    for hour in range(48):
        yield _call(random_numbers, (hour + random_numbers.random()) * HOUR)


def _surge(random_numbers: random.Random) -> Iterator[Arrival]:
    """From nothing to 250 calls a second within half an hour, and back."""
    yield from _poisson(random_numbers, 1.5 * HOUR, lambda at: 250 * max(1 - abs(at / HOUR - 0.5) / 0.5, 0.0), 250.0)


PATTERNS = {
    traffic.name: traffic
    for traffic in (
        Traffic("steady", "10 calls a second for two hours", 3 * HOUR, 40, _steady),
        Traffic("diurnal", "a day: up to 8 calls a second, hardly any at night", 24 * HOUR, 40, _diurnal),
        Traffic("bursty", "every 20 minutes or so 3,000 calls within 20 s", 6 * HOUR, 200, _bursty),
        Traffic("nightly", "800,000 pairs of batch work at night, a call every 10 s by day", 24 * HOUR, 200, _nightly),
        Traffic("hourly", "one call an hour", 48 * HOUR, 4, _hourly),
        Traffic("surge", "to 250 calls a second in half an hour, and back", 1.5 * HOUR, 400, _surge),
    )
}


def busiest_minute(arrivals: Sequence[Arrival]) -> int:
    """The estimated tokens of the interactive work that came in the minute in which most of it did."""
    minutes: Counter[int] = Counter()
    for arrival in arrivals:
        if arrival.work_class is WorkClass.INTERACTIVE:
            minutes[int(arrival.at // 60)] += arrival.tokens
    return max(minutes.values(), default=0)


def recorded(path: Path, max_workers: int) -> Traffic:
    """The arrivals in a CSV file with the columns seconds, pairs, tokens and class (interactive or batch).

    Lines that begin with # are remarks. Raises ValueError naming the line, and OSError.
    """
    with path.open(newline="") as file:
        try:
            arrivals = list(_read(file))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    if not arrivals:
        raise ValueError(f"{path}: there is no arrival in it")
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
            raise ValueError(f"line {number}: {','.join(_COLUMNS)} are expected, {','.join(row)!r} was read") from error
        if not (0 <= arrival.at < math.inf and arrival.pairs > 0 and arrival.tokens > 0):
            raise ValueError(f"line {number}: seconds must not be negative, pairs and tokens must be above 0")
        yield arrival
