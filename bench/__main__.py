"""`make bench`: this service against vLLM's own API server and ONNX Runtime, on the same weights, in the same run.

Prints one Markdown table; bench/README.md explains the cases. A complete run also writes bench/results/NAME.json (the
machine, the versions, every round) and bench/results/latency_under_load.svg.
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
from bench.cases import CASES, cases_to_measure
from bench.measurements import Plan
from bench.rounds import Run

RESULTS = Path(__file__).parent / "results"
DTYPES = """\
Both sides compute in float32, except where a case says otherwise; "as shipped", neither side is given a dtype.
In p1 and p2 the other side is ONNX Runtime."""


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    plan = Plan(cases_to_measure(options.only), options.rounds, options.seconds, options.backlog, options.seed)
    signal.signal(signal.SIGTERM, exit_on_sigterm)
    clear_settings(os.environ)
    with tempfile.TemporaryDirectory(prefix="rerankq-bench-", ignore_cleanup_errors=True) as folder:
        run = Run(plan, Path(folder))
        interrupted = False
        try:
            run.run_all()
        except KeyboardInterrupt:
            # Print what was measured so far; the table marks the other cases as not measured.
            interrupted = True
    print(f"{report.table(run.measured, plan.cases)}\n\n{DTYPES}")
    name = options.name or ("" if options.only or options.quick else f"{datetime.now(UTC):%Y-%m-%d}")
    if name and not interrupted:
        for path in report.write(run.measured, plan, RESULTS, name):
            print(f"written: {path}", file=sys.stderr)
    if interrupted:
        return 130
    return 1 if run.measured.failures else 0


def parse(arguments: list[str]) -> argparse.Namespace:
    """Exits with a usage message when an option is invalid."""
    cases = "\n".join(f"  {name:9}{case.title} ({case.unit})" for name, case in CASES.items())
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        epilog=f"cases:\n{cases}\n\nexit status: 0 when every case was measured, met or missed; 1 when a case failed.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", nargs="+", choices=list(CASES), default=[], metavar="CASE", help="measure only these cases"
    )
    parser.add_argument("--rounds", type=positive, default=0, help="how often each server is measured; default: 2")
    parser.add_argument("--seconds", type=float, default=0.0, help="length of each load; default: 8")
    parser.add_argument("--backlog", type=positive, default=0, help="pairs queued in case g; default: 5000")
    parser.add_argument("--seed", type=int, default=1, help="seed of the random texts; default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="a smoke test: one round, 2 s, 1000 pairs")
    parser.add_argument(
        "--name", default="", help="write bench/results/NAME.json; default: the date for a complete run, else no file"
    )
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (1 if options.quick else 2)
    options.seconds = options.seconds or (2.0 if options.quick else 8.0)
    options.backlog = options.backlog or (1000 if options.quick else 5000)
    if not 0.5 <= options.seconds <= 300:
        parser.error("--seconds must be from 0.5 to 300")
    return options


def clear_settings(environment: MutableMapping[str, str], prefixes: tuple[str, ...] = ("RERANKQ_", "VLLM_")) -> None:
    """Remove the settings of both servers from the environment, so that both run with their defaults."""
    for name in [name for name in environment if name.startswith(prefixes) or name == "REDIS_URL"]:
        del environment[name]


def positive(text: str) -> int:
    """Parse an integer of at least 1. Raises argparse.ArgumentTypeError."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def exit_on_sigterm(*_: object) -> None:
    """Signal handler for SIGTERM: exit in order, so that the servers are stopped and the folder is removed."""
    raise SystemExit(143)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
