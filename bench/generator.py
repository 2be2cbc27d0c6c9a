"""Runs the load generator's process and the bare engine's: order in, outcome out, never left behind."""

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


@dataclass(frozen=True, slots=True)
class EngineSpeed:
    """What the bare engine reached, and how long it took until it was there."""

    pairs_per_second: float
    start_seconds: float


class MeasurementFailed(Exception):
    """A load that met errors, or that could not be put on at all."""


def measure(load: Load) -> Outcome:
    """Put the load on and wait for what it finds. Raises MeasurementFailed at the first error."""
    with running(load) as process:
        return outcome(process)


@contextmanager
def running(load: Load) -> Iterator["subprocess.Popen[str]"]:
    """The generator at work; killed when the block is left before it has ended, or when it is long overdue."""
    command = [sys.executable, "-m", "bench.load"]
    # A session of its own: Ctrl-C reaches us alone, and we stop it.
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
    """Return once all of a counted load is on its way. Raises MeasurementFailed when it ends before."""
    assert process.stdout is not None
    if (line := process.stdout.readline().strip()) != SENT:
        raise MeasurementFailed(f"the load could not be sent: {line} {process.stdout.read()[-1000:]}")


def outcome(process: "subprocess.Popen[str]") -> Outcome:
    """What the generator found, when it has ended. Raises MeasurementFailed."""
    assert process.stdout is not None
    said = process.stdout.read()
    if process.wait() != 0:
        raise MeasurementFailed(f"the load ended with status {process.returncode}: {said.strip()[-1000:]}")
    found = Outcome(**json.loads(said.splitlines()[-1]))
    if found.failed or not found.requests:
        raise MeasurementFailed(f"{found.failed} errors: {'; '.join(found.errors) or 'no answer at all'}")
    return found


def bare_engine(order: dict[str, Any], variables: dict[str, str], log: Path) -> EngineSpeed:
    """vLLM's engine in a process of its own. Raises MeasurementFailed."""
    limit = order["seconds"] + 180
    with log.open("w") as complaints:
        try:
            process = subprocess.run(
                [sys.executable, "-m", "bench.bare_engine"],
                cwd=ROOT,
                env=variables,
                input=json.dumps(order),
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
                timeout=limit,
                start_new_session=True,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise MeasurementFailed(f"the bare engine had not ended after {limit:g} s") from None
    if process.returncode:
        raise MeasurementFailed(f"the bare engine ended with {process.returncode}: {log.read_text()[-1000:]}")
    found = json.loads(process.stdout)
    return EngineSpeed(found["pairs"] / found["seconds"], found["start_seconds"])
