"""`python -m bench.gpu`: this service against vLLM's own server and engine on a CUDA machine, in six minutes.

Needs no network: it creates a cross-encoder of the shape of bge-reranker-v2-m3. Prints one JSON object a line for each
result, progress to standard error, and at the end a Markdown table, also to standard error. bench/GPU.md explains it.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import report
from bench.__main__ import clear_settings, exit_on_sigterm, positive
from bench.cases import Measured
from bench.generator import MeasurementFailed
from bench.gpu.cases import CASES, Lines
from bench.gpu.deadline import Deadline
from bench.gpu.run import STEPS, GpuRun, sizes

_STOP_SECONDS = 20.0
"""Reserved within the time limit for stopping a server."""
LINES_FILE, TABLE_FILE = "gpu.jsonl", "gpu.md"


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    deadline = Deadline(options.deadline - _STOP_SECONDS)
    signal.signal(signal.SIGTERM, exit_on_sigterm)
    # vLLM's variables stay: both sides get them, and a new device may need one.
    clear_settings(os.environ, ("RERANKQ_",))
    lines = Lines(options.out / LINES_FILE if options.out else None)
    with tempfile.TemporaryDirectory(prefix="rerankq-gpu-", ignore_cleanup_errors=True) as folder:
        chosen = sizes(options.small, options.seconds, options.engine_args)
        run = GpuRun(chosen, Path(folder), lines, deadline)
        interrupted = False
        try:
            run.prepare(require_cuda=not options.small)
            # The trial compiles nothing, so another start would be like the first one.
            run.run(options.only or (STEPS[:-1] if options.small else STEPS), options.rounds)
        except MeasurementFailed as error:
            print(error, file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            # Print what was measured so far.
            interrupted = True
    if run.device:
        text = summary(run.device, run.measured)
        print(text, file=sys.stderr)
        if options.out:
            (options.out / TABLE_FILE).write_text(text + "\n")
    return 130 if interrupted else 1 if run.measured.failures else 0


def summary(device: dict[str, Any], measured: Measured) -> str:
    """Return the table in Markdown, under a line that names the device."""
    names = [name for name in CASES if name in measured.values]
    rate = f"{device['matrix_tflops']:.3g} TFLOP/s"
    size = device["matrix_size"]
    return (
        f"{device['name']}: {rate} in a matrix product of {size:,} x {size:,} in {device['dtype']}.\n\n"
        f"{report.table(measured, names, CASES)}"
    )


def parse(arguments: list[str]) -> argparse.Namespace:
    """Exits with a usage message when an option is invalid."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="a trial on a CPU: a tiny model and short loads")
    parser.add_argument("--only", nargs="+", choices=STEPS, default=[], metavar="STEP", help=f"of {', '.join(STEPS)}")
    parser.add_argument("--out", type=Path, help=f"a folder, for {LINES_FILE} and {TABLE_FILE}")
    parser.add_argument("--seconds", type=float, default=0.0, help="length of each load; default: 4, with --small 0.5")
    parser.add_argument("--rounds", type=positive, default=1, help="turns of each server; default: %(default)s")
    parser.add_argument("--deadline", type=float, default=360.0, help="seconds for the whole run; default: %(default)g")
    parser.add_argument(
        "--engine-args", type=json_object, default={}, metavar="JSON", help="more arguments of vLLM, for both sides"
    )
    options = parser.parse_args(arguments)
    if options.seconds < 0:
        parser.error("--seconds must be positive")
    if options.deadline <= _STOP_SECONDS:
        parser.error(f"--deadline must be more than {_STOP_SECONDS:g} s, which are reserved for stopping a server")
    return options


def json_object(text: str) -> dict[str, Any]:
    """Parse a JSON object. Raises argparse.ArgumentTypeError."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("must be a JSON object")
    return value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
