"""`python -m bench.overload`: runs the cases, prints one Markdown table, and writes the figures as JSON."""

import argparse
import asyncio
import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from bench import machine
from bench.overload.cases import CASES, Lengths, Measurement

RESULT = Path(__file__).parents[1] / "results" / "overload.json"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="make bench-overload",
        description="Measures what callers get under overload: a lexical engine of known capacity, an open loop.",
    )
    parser.add_argument("--only", nargs="+", choices=CASES, metavar="CASE", help=f"of {', '.join(CASES)}")
    parser.add_argument("--quick", action="store_true", help="short loads; writes no file")
    options = parser.parse_args()
    described = machine.describe()
    lengths = Lengths(warm_up=4, calm=5, storm=5, flood_jobs=1000, obedient=600) if options.quick else Lengths()
    measurements: list[Measurement] = []
    for name in options.only or CASES:
        print(f"[{datetime.now(UTC):%H:%M:%S}] {name}", file=sys.stderr, flush=True)
        measurements += asyncio.run(CASES[name](lengths))
    print(table(measurements))
    if not options.quick and not options.only:
        result = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "machine": described, "versions": machine.versions()}
        RESULT.write_text(json.dumps(result | {"cases": [asdict(line) for line in measurements]}, indent=1) + "\n")
        print(f"\nwrote {RESULT}", file=sys.stderr)
    return 0 if all(line.met for line in measurements) else 1


def table(measurements: list[Measurement]) -> str:
    """The measurements as a Markdown table."""
    lines = ["| case | measured | target | |", "|---|---|---|---|"]
    lines += [
        f"| {line.what} | {line.measured} | {line.target} | {'met' if line.met else 'missed'} |"
        for line in measurements
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
