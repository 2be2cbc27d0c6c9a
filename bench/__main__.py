"""`make bench`: this service as it ships against vLLM's own API server, on the same weights, in the same run.

Prints one Markdown table; whoever reads it finds in bench/README.md what the cases are. A whole run also writes
bench/results/NAME.json (the machine, the versions, every round) and bench/results/latency_under_load.svg.
"""

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import MutableMapping
from datetime import UTC, datetime
from pathlib import Path

from bench import report
from bench.cases import CASES, wanted
from bench.measurements import Plan
from bench.rounds import Run

RESULTS = Path(__file__).parent / "results"


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    plan = Plan(wanted(options.only), options.rounds, options.seconds, options.backlog, options.seed)
    signal.signal(signal.SIGTERM, terminated)
    forget_settings(os.environ)
    with tempfile.TemporaryDirectory(prefix="rerankq-bench-", ignore_cleanup_errors=True) as folder:
        run = Run(plan, Path(folder))
        interrupted = False
        try:
            run.all()
        except KeyboardInterrupt:
            # What was measured is worth a table; what was not stands there as missing.
            interrupted = True
    print(report.table(run.measured, plan.cases))
    name = options.name or ("" if options.only or options.quick else f"{datetime.now(UTC):%Y-%m-%d}")
    if name and not interrupted:
        for path in report.write(run.measured, plan, RESULTS, name):
            print(f"written: {path}", file=sys.stderr)
    if interrupted:
        return 130
    return 1 if run.measured.failures else 0


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options. Exits with a usage message for wrong ones."""
    cases = "\n".join(f"  {name:9}{case.title} ({case.unit})" for name, case in CASES.items())
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        epilog=f"cases:\n{cases}\n\nexit status: 0 when everything was measured, met or missed; 1 when a case failed.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=[], metavar="CASE", help="these cases alone")
    parser.add_argument("--rounds", type=positive, default=0, help="turns of each server; default: 2")
    parser.add_argument("--seconds", type=float, default=0.0, help="length of one load; default: 8")
    parser.add_argument("--backlog", type=positive, default=0, help="pairs queued in case g; default: 5000")
    parser.add_argument("--seed", type=int, default=1, help="what the words are drawn with; default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="one round, 2 s, 1000 pairs: to see that it works")
    parser.add_argument(
        "--name", default="", help="write bench/results/NAME.json; default: today's date for a whole run, else nothing"
    )
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (1 if options.quick else 2)
    options.seconds = options.seconds or (2.0 if options.quick else 8.0)
    options.backlog = options.backlog or (1000 if options.quick else 5000)
    if not 0.5 <= options.seconds <= 300:
        parser.error("--seconds must be from 0.5 to 300")
    return options


def forget_settings(environment: MutableMapping[str, str]) -> None:
    """Both servers as they ship: what the caller's shell sets for either is left out."""
    for name in [name for name in environment if name.startswith(("RERANKQ_", "VLLM_")) or name == "REDIS_URL"]:
        del environment[name]


def positive(text: str) -> int:
    """An option's number, at least 1. Raises argparse.ArgumentTypeError."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def terminated(*_: object) -> None:
    """A polite kill ends in order: every server is stopped, the folder removed."""
    raise SystemExit(143)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
