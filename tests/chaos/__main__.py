"""`python -m tests.chaos`: the long fault-injection run. Exits with 1 if it finds problems."""

import argparse
import signal
import sys
import threading
import time
from types import FrameType

from rich.console import Console

from tests.chaos.harness import run_scenarios
from tests.chaos.report import print_table
from tests.chaos.scenarios import long_scenarios


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description="Inject faults into every component under load, then check every job."
    )
    parser.add_argument(
        "--kills", type=int, default=200, help="number of workers to kill with SIGKILL; default: %(default)s"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the load and the faults; default: %(default)s")
    parser.add_argument("--only", help="inject only the faults whose name contains this text")
    parser.add_argument("--keep", action="store_true", help="keep the logs of the processes")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    console = Console()
    stopped = threading.Event()
    started = time.monotonic()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)

    def log(text: str) -> None:
        line = f"{time.monotonic() - started:4.0f} s  {text}"
        console.print(line, highlight=False, soft_wrap=True, markup=False)

    scenarios = long_scenarios(options.kills, only=options.only or "", keep=options.keep)
    try:
        rows = run_scenarios(scenarios, options.seed, log, stopped)
    except KeyboardInterrupt:
        log("stopped")
        return 130
    print_table(rows, console)
    log(f"seed {options.seed}; command: `python -m tests.chaos --kills {options.kills} --seed {options.seed}`")
    return 1 if any(row.problems for row in rows) else 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
