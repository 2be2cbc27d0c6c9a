"""`python -m bench.batch`: runs the cases, prints one Markdown table, and writes JSON after each case."""

import argparse
import os
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from bench.__main__ import clear_settings, exit_on_sigterm
from bench.batch.cases import CASES, LEDGER, MEMORY, ORDER, ledger_rows, memory_rows
from bench.batch.context import FULL, QUICK, Context
from bench.batch.inputs import Inputs
from bench.batch.report import Report, table
from bench.batch.service import Deadline
from bench.generator import MeasurementFailed
from infra.local.stack import StackError
from shared.errors import RerankqError

RESULT = Path(__file__).parents[1] / "results" / "batch.json"


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    signal.signal(signal.SIGTERM, exit_on_sigterm)
    clear_settings(os.environ)
    sizes = QUICK if options.quick else FULL
    report = Report(ORDER, {"quick": options.quick, **asdict(sizes)})
    interrupted = False
    with tempfile.TemporaryDirectory(prefix="rerankq-bench-", ignore_cleanup_errors=True) as folder:
        context = Context(sizes, Inputs(Path(folder)), Path(folder), _Progress().tell)
        try:
            run(options.only, context, report, options.output)
        except KeyboardInterrupt:
            interrupted = True
    print(table(report.rows))
    if options.output is not None:
        print(f"\nwritten: {options.output}", file=sys.stderr)
    if interrupted:
        return 130
    return 0 if report.all_met else 1


def run(names: list[str], context: Context, report: Report, output: Path | None) -> None:
    """Run the cases. The failure of one is recorded, and the others run all the same."""
    for position, name in enumerate(names):
        context.tell(f"{name}: {CASES[name].title}")
        context.deadline = Deadline(CASES[name].limit_seconds)
        try:
            report.add(name, CASES[name].run(context))
        except (MeasurementFailed, StackError, RerankqError, OSError) as error:
            report.failures.append(f"{name}: {error}")
            context.tell(f"{name}: FAILED: {error}")
        report.add(MEMORY, memory_rows(context))
        report.add(LEDGER, ledger_rows(context))
        if output is not None:
            report.write(output, unmeasured=names[position + 1 :])


class _Progress:
    """Prints lines with the seconds since the start to standard error."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def tell(self, message: str) -> None:
        print(f"[{time.monotonic() - self._began:5.0f} s] {message}", file=sys.stderr, flush=True)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Exits with a usage message when an option is invalid."""
    cases = "\n".join(f"  {name:12}{case.title}" for name, case in CASES.items())
    parser = argparse.ArgumentParser(
        prog="make bench-batch",
        description=__doc__,
        epilog=f"cases:\n{cases}\n\nexit status: 0 when all targets are met, 1 when one is missed or a case failed.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", choices=list(CASES), metavar="CASE", help="measure only these cases")
    parser.add_argument("--quick", action="store_true", help="a smoke test: a twentieth of the sizes, 2 minutes")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help=f"default: results/{RESULT.name} for a complete run, else no file"
    )
    options = parser.parse_args(arguments)
    if options.output is None and not options.quick and not options.only:
        options.output = RESULT
    # In the order of the table, each once.
    options.only = [name for name in CASES if options.only is None or name in options.only]
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
