"""`python -m tests.soak`: half an hour at 0.7 of the capacity, with a kill every minute. Exits with 1 on growth."""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

from tests.soak.report import picture, summary, table
from tests.soak.run import Plan, run


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="length of the run; default: %(default)s")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw what was measured, as SVG")
    options = parser.parse_args(arguments)
    seconds = options.minutes * 60
    plan = replace(Plan(), seconds=seconds, warm_up_seconds=min(300.0, seconds / 3))
    started = time.monotonic()
    outcome = run(plan, lambda text: print(f"{time.monotonic() - started:5.0f} s  {text}", flush=True))
    print(f"\n{summary(outcome)}\n\n{table(outcome)}")
    if options.picture:
        picture(outcome, options.picture)
    for problem in outcome.problems():
        print(f"problem: {problem}")
    return 1 if outcome.problems() else 0


if __name__ == "__main__":
    sys.exit(main())
