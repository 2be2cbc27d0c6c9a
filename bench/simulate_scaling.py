"""`make simulate`: simulates the wait of callers and the cost of workers under this project's scaling policy and KEDA.

Jobs, workers and clocks are simulated (bench/fleet.py); the decisions of this project's policy are made by the real
code in shared.pools.scaling. The other policies are KEDA with the HPA, and a fixed number of workers.

Prints one Markdown table; bench/README.md explains the model. A run of all patterns also writes
bench/results/scaling_simulation.json and .svg. The same options and seed print the same table.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench import scaling_report
from bench.fleet import Fleet, Plan, Scaler
from bench.scalers import SHIPPED, AlwaysOn, BacklogAlone, KedaHpa, KedaOnDesired, KedaSettings, Policy
from bench.scaling_report import Row
from bench.traffic import PATTERNS, Arrival, Traffic, busiest_minute, recorded
from shared.models import PoolSettings
from shared.pools.scaling import MAX_UTILIZATION

RESULTS = Path(__file__).parent / "results"
EXAMPLE = Path(__file__).parent / "arrivals" / "made_example.csv"
NAME = "scaling_simulation"
_RECORDED_MAX_WORKERS = 20
_USUAL = ("rerankq", "kubernetes", "keda", "always-on")

_Maker = Callable[[PoolSettings, Plan, Sequence[Arrival]], tuple[Scaler, int]]


def _always_on(_pool: PoolSettings, plan: Plan, arrivals: Sequence[Arrival]) -> tuple[Scaler, int]:
    """A fixed number of workers, enough for the busiest minute of interactive work."""
    workers = int(busiest_minute(arrivals) / (60 * plan.tokens_per_second * MAX_UTILIZATION)) + 1
    return AlwaysOn(workers), workers


def _keda(pool: PoolSettings, plan: Plan, _arrivals: Sequence[Arrival]) -> tuple[Scaler, int]:
    """KEDA and the HPA with their defaults, except that `cooldownPeriod` is the pool's `idle_seconds`."""
    return KedaHpa(pool, KedaSettings(cooldown_seconds=pool.idle_seconds), plan.tokens_per_second), pool.min


SCALERS: dict[str, _Maker] = {
    "rerankq": lambda pool, _plan, _arrivals: (Policy(pool), pool.min),
    "kubernetes": lambda pool, _plan, _arrivals: (KedaOnDesired(pool, SHIPPED), pool.min),
    "keda": _keda,
    "always-on": _always_on,
    "backlog-alone": lambda pool, _plan, _arrivals: (BacklogAlone(pool), pool.min),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table: a traffic pattern, a scaler and its settings."""

    traffic: Traffic
    scaler: str
    plan: Plan
    settings: dict[str, Any]
    varied: str = ""

    def pool(self) -> PoolSettings:
        """Return the pool's settings. Raises ValidationError."""
        return PoolSettings(**{"max": self.traffic.max_workers, **self.settings})


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    began = time.monotonic()
    rows = []
    for case in cases(options):
        print(f"[{time.monotonic() - began:4.0f} s] {case.traffic.name}: {case.scaler} {case.varied}", file=sys.stderr)
        rows.append(simulate(case, options.seed))
    print(scaling_report.table(rows))
    if options.name:
        about = {name: value for name, value in vars(options).items() if name not in ("name", "patterns")}
        for path in scaling_report.write(rows, about, RESULTS, options.name):
            print(f"written: {path}", file=sys.stderr)
    return 0


def simulate(case: Case, seed: int) -> Row:
    """Simulate one case, from its first job to its last."""
    arrivals = case.traffic.generate(seed)
    scaler, warm = SCALERS[case.scaler](case.pool(), case.plan, arrivals)
    outcome = Fleet(scaler, case.plan, warm).run(arrivals, case.traffic.seconds)
    return scaling_report.summarize(case.traffic.name, case.scaler, case.varied, outcome)


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """Yield the cases that the options select."""
    plan: dict[str, Any] = {"tokens_per_second": options.rate, "start_seconds": options.start_seconds}
    name, values = options.sweep or ("", [None])
    for traffic in options.patterns:
        for value in values:
            here, settings = dict(plan), dict(options.set)
            if name == "start_seconds":
                here[name] = value
            elif name:
                settings[name] = value
            for scaler in options.scalers:
                yield Case(traffic, scaler, Plan(**here), settings, f"{name}={value:g}" if name else "")


def parse(arguments: list[str]) -> argparse.Namespace:
    """Exits with a usage message when an option is invalid."""
    patterns = "\n".join(f"  {name:9}{traffic.title}" for name, traffic in PATTERNS.items())
    parser = argparse.ArgumentParser(
        prog="python -m bench.simulate_scaling",
        description=__doc__,
        epilog=f"patterns:\n{patterns}\n\npool settings: {', '.join(PoolSettings.model_fields)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--only", nargs="+", choices=list(PATTERNS), default=[], metavar="PATTERN", help="simulate only these patterns")
    add("--recorded", type=Path, metavar="FILE", help="simulate arrivals from a CSV file: seconds,pairs,tokens,class")
    add("--scalers", nargs="+", choices=list(SCALERS), default=list(_USUAL), help="default: all but backlog-alone")
    add("--rate", type=_positive, default=8000.0, help="tokens per second of one worker; default: %(default)g")
    add("--start-seconds", type=_positive, default=30.0, help="start time of a worker; default: %(default)g")
    add("--set", type=_setting, action="append", default=[], metavar="NAME=VALUE", help="change a setting of all pools")
    add("--sweep", type=_sweep, metavar="NAME=V1,V2", help="one row for each value of a setting, or of start_seconds")
    add("--seed", type=int, default=1, help="seed of the arrivals; default: %(default)s")
    add("--name", default="", help=f"write bench/results/NAME.json and .svg; default: {NAME} for a complete run")
    options = parser.parse_args(arguments)
    whole = not (options.only or options.recorded or options.set or options.sweep)
    options.name = options.name or (NAME if whole and options.scalers == list(_USUAL) else "")
    try:
        options.patterns = list(_patterns(options))
        for case in cases(options):
            case.pool()
    except ValidationError as error:
        first = error.errors()[0]
        parser.error(f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return options


def _patterns(options: argparse.Namespace) -> Iterator[Traffic]:
    """Yield the selected patterns; without a selection, all of them and the example of recorded arrivals."""
    if options.only or not options.recorded:
        yield from (PATTERNS[name] for name in options.only or PATTERNS)
    if options.recorded or not options.only:
        yield recorded(options.recorded or EXAMPLE, _RECORDED_MAX_WORKERS)


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError("expected NAME=VALUE")
    return name, value


def _sweep(text: str) -> tuple[str, list[float]]:
    name, values = _setting(text)
    try:
        return name, [float(value) for value in values.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError("expected NAME=V1,V2 with numbers") from None


def _positive(text: str) -> float:
    if not 0 < (value := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError("must be above 0")
    return value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
