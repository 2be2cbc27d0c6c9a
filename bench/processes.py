"""`make bench-processes`: measures calls a second with one and with several processes of the API.

The lexical engine, Redis and the load generator share the machine with the API. The first kind of call is scored by the
worker, the second is answered from the score cache, without a worker. The numbers of processes take turns.
"""

import argparse
import statistics
import sys
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import yaml

from bench import machine, models
from bench.generator import measure
from bench.interactive_under_load import ReadyStack
from bench.spec import Freshness, Load, Outcome
from infra.local.stack import Options

MODEL = "lexical"
CASES = {"scored by the worker": Freshness.ALL, "answered from the cache": Freshness.NOTHING}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.processes", description=__doc__)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="default: 1 2")
    parser.add_argument("--connections", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each load; default: %(default)g")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    options = parser.parse_args()
    found = machine.describe()
    outcomes = run(options.processes, options.connections, options.seconds, options.rounds)
    print(f"{datetime.now(UTC):%Y-%m-%d}, {found['cores']} cores ({found['cpu']}), load before {found['load_before']}")
    print(f"{options.connections} connections, 1 document of 5 words, medians of {options.rounds} rounds")
    print(table(outcomes))
    return 0


def run(counts: list[int], connections: int, seconds: float, rounds: int) -> dict[tuple[str, int], list[Outcome]]:
    """The outcomes of all rounds, by case and number of processes. Raises MeasurementFailed."""
    outcomes: dict[tuple[str, int], list[Outcome]] = {}
    with ExitStack() as context:
        folder = Path(context.enter_context(tempfile.TemporaryDirectory()))
        stacks = {count: context.enter_context(service(folder, count)) for count in counts}
        first = 0
        for _ in range(rounds):
            for case, fresh in CASES.items():
                for count, stack in stacks.items():
                    # No load repeats a text of an earlier one.
                    first += 1_000_000
                    load = Load(
                        port=stack.port,
                        model=MODEL,
                        vocabulary=str(models.bundled()),
                        first=first,
                        connections=connections,
                        documents=1,
                        words=5,
                        seconds=seconds,
                        fresh=fresh,
                    )
                    outcomes.setdefault((case, count), []).append(measure(load))
    return outcomes


def service(folder: Path, processes: int) -> ReadyStack:
    """A service with one worker and so many processes of the API, which runs while its context is entered."""
    path = folder / "models.yaml"
    path.write_text(yaml.safe_dump({"models": [{"name": MODEL, "engine": "lexical"}]}))
    environment = {"RERANKQ_MODELS_FILE": str(path), "RERANKQ_LOG_LEVEL": "WARNING", "RERANKQ_DRAIN_SECONDS": "0"}
    return ReadyStack(Options(port=0, environment=environment, processes=processes))


def table(outcomes: dict[tuple[str, int], list[Outcome]]) -> str:
    """One row for each case and number of processes."""
    rows = ["| calls | processes | calls/s | lowest and highest | p50 | p99 |", "|---|---:|---:|---:|---:|---:|"]
    for (case, count), measured in outcomes.items():
        rates = [outcome.requests_per_second for outcome in measured]
        p50, p99 = (statistics.median(each.latency_ms[name] for each in measured) for name in ("p50", "p99"))
        rows.append(
            f"| {case} | {count} | {statistics.median(rates):,.0f} | {min(rates):,.0f} to {max(rates):,.0f} "
            f"| {p50:.1f} ms | {p99:.1f} ms |"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
