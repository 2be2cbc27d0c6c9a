"""Runs the processes of the load generator and of the bare engine, and reads their results.

No process outlives the call or the context manager that started it.
"""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.load import SENT
from bench.spec import Load, Outcome

ROOT = Path(__file__).resolve().parents[1]
_BEGIN_SECONDS = 60.0
_ENGINE_SECONDS = 180.0
"""For the start of an engine, and for the pairs that it still scores after the measured time."""


@dataclass(frozen=True, slots=True)
class EngineSpeed:
    """The rate of the bare engine, the seconds until it was ready, and the scores of its sample."""

    pairs_per_second: float
    start_seconds: float
    sample: list[float]


class MeasurementFailed(Exception):
    """A load had errors or could not be run."""


def measure(load: Load) -> Outcome:
    """Run the load and return its outcome. Raises MeasurementFailed when it had errors."""
    with running(load) as process:
        return outcome(process)


@contextmanager
def running(load: Load) -> Iterator["subprocess.Popen[str]"]:
    """Start the generator; kill it when the block ends first, or when it is long overdue."""
    command = [sys.executable, "-m", "bench.load"]
    # In a new session, Ctrl-C reaches only this process, which then stops the generator.
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        overdue = threading.Timer(_BEGIN_SECONDS + load.warm_up + load.seconds + 2 * load.timeout, process.kill)
        try:
            overdue.start()
            assert process.stdin is not None
            process.stdin.write(json.dumps(asdict(load)))
            process.stdin.close()
            yield process
        finally:
            overdue.cancel()
            process.kill()


def wait_until_sent(process: "subprocess.Popen[str]") -> None:
    """Wait until all requests of a counted load are sent. Raises MeasurementFailed when the generator ends first."""
    assert process.stdout is not None
    if (line := process.stdout.readline().strip()) != SENT:
        raise MeasurementFailed(f"the load could not be sent: {line} {process.stdout.read()[-1000:]}")


def outcome(process: "subprocess.Popen[str]") -> Outcome:
    """Wait for the generator to end and return its outcome. Raises MeasurementFailed."""
    assert process.stdout is not None
    output = process.stdout.read()
    if process.wait() != 0:
        raise MeasurementFailed(f"the load ended with status {process.returncode}: {output.strip()[-1000:]}")
    found = Outcome(**json.loads(output.splitlines()[-1]))
    if found.failed or not found.requests:
        raise MeasurementFailed(f"{found.failed} errors: {'; '.join(found.errors) or 'no response'}")
    return found


def bare_engine(settings: dict[str, Any], variables: dict[str, str], log: Path) -> list[EngineSpeed]:
    """Measure vLLM's engine in a process of its own (bench/bare_engine.py). Raises MeasurementFailed.

    Returns the speed for each length in `settings["words"]`.
    """
    limit = settings["seconds"] * len(settings["words"]) + _ENGINE_SECONDS
    found = run_program("bench.bare_engine", settings, variables, log, limit)
    return [EngineSpeed(each["pairs"] / each["seconds"], each["start_seconds"], each["sample"]) for each in found]


def run_program(
    module: str, settings: Any, variables: dict[str, str], log: Path, limit: float, python: str = sys.executable
) -> Any:
    """Run a module that reads JSON and prints JSON as its last line.

    `python` is the interpreter, by default this one. Raises MeasurementFailed, also after `limit` seconds.
    """
    with log.open("w") as errors:
        try:
            process = subprocess.run(
                [python, "-m", module],
                cwd=ROOT,
                env=variables,
                input=json.dumps(settings),
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                timeout=limit,
                start_new_session=True,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise MeasurementFailed(f"{module} had not ended after {limit:g} s") from None
    if process.returncode:
        raise MeasurementFailed(f"{module} ended with {process.returncode}: {log.read_text()[-1000:]}")
    return json.loads(process.stdout.splitlines()[-1])
