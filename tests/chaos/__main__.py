"""`python -m tests.chaos`: the long form. Ends with status 1 when anything was lost, done twice or done wrongly."""

import argparse
import signal
import sys
import threading
import time
from types import FrameType

from rich.console import Console

from tests.chaos.harness import run_lanes
from tests.chaos.plans import long_lanes
from tests.chaos.report import print_table


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description="Break everything that can break, and see what becomes of the jobs."
    )
    parser.add_argument("--kills", type=int, default=200, help="workers to kill by SIGKILL; default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--only", help="play only the faults whose name holds this text")
    parser.add_argument("--keep", action="store_true", help="leave the processes' logs where they are")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    console = Console()
    stopped = threading.Event()
    started = time.monotonic()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)

    def say(text: str) -> None:
        line = f"{time.monotonic() - started:4.0f} s  {text}"
        console.print(line, highlight=False, soft_wrap=True, markup=False)

    lanes = long_lanes(options.kills, only=options.only or "", keep=options.keep)
    try:
        rows = run_lanes(lanes, options.seed, say, stopped)
    except KeyboardInterrupt:
        say("stopped")
        return 130
    print_table(rows, console)
    say(f"seed {options.seed}; the table is of `python -m tests.chaos --kills {options.kills} --seed {options.seed}`")
    return 1 if any(row.problems for row in rows) else 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
