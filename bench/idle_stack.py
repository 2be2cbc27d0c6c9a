"""Runs the service with no worker, as `make run` does, and measures cold starts stage by stage.

The total is measured by the caller; the stages come from the worker's log. A start counts only when no worker was
running before it.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psutil

from bench.generator import MeasurementFailed
from bench.servers import post
from infra.local.stack import Options, Stack

ASLEEP_SECONDS = 30.0
STANDBY_SECONDS = 90.0
WAKE, FIRST_SCORE = "wake", "first score"
_POLL_SECONDS = 0.02
_READY = re.compile(r"worker\[\d+\] (\S+ \S+) INFO .*, ready after ([\d.]+) s \((.+)\)")
_STANDBY = "a standby is ready"


@dataclass(frozen=True, slots=True)
class Start:
    """One cold start. `seconds` runs from the HTTP request to its response; the `stages` add up to it.

    `again_seconds` is the latency of the same call right afterwards.
    """

    seconds: float
    stages: dict[str, float]
    again_seconds: float


class IdleStack:
    """A running stack whose pool scales to zero when it is idle."""

    def __init__(self, stack: Stack, model: str, standby: bool) -> None:
        self.stack = stack
        self.model = model
        self._standby = standby

    def workers(self) -> int:
        """Return the number of worker processes, without the standby."""
        children = psutil.Process(self.stack.child("autoscaler").pid).children()
        return len(children) - self._standby

    def until_asleep(self) -> None:
        """Wait until no worker runs and the standby, if any, is ready. Raises MeasurementFailed."""
        if self._standby:
            self._until(
                lambda: _STANDBY in self.stack.log("autoscaler").read_text(), STANDBY_SECONDS, "no standby is ready"
            )
        self._until(lambda: self.workers() == 0, ASLEEP_SECONDS, "a worker still runs")

    def wake(self, body: str) -> Start:
        """Send a request that starts a worker. Raises MeasurementFailed."""
        self.until_asleep()
        starts = len(_READY.findall(self._log()))
        sent_at = time.time()
        seconds = self._timed(body)
        self._until(lambda: len(_READY.findall(self._log())) > starts, 5.0, "the worker has not logged its start")
        logged_at, start_seconds, stages = _READY.findall(self._log())[-1]
        ready_at = datetime.strptime(logged_at, "%Y-%m-%d %H:%M:%S,%f").timestamp()
        named = dict(stage.rsplit(" ", 1) for stage in stages.split(", "))
        parts = {
            WAKE: ready_at - sent_at - float(start_seconds),
            **{name: float(value) for name, value in named.items()},
            FIRST_SCORE: sent_at + seconds - ready_at,
        }
        return Start(seconds, {name: round(value, 3) for name, value in parts.items()}, self._timed(body))

    def _timed(self, body: str) -> float:
        began = time.perf_counter()
        status, response = post(self.stack.port, "/v1/rerank", body)
        if status != 200:
            raise MeasurementFailed(f"the request got {status}: {response[:300]!r}")
        return time.perf_counter() - began

    def _log(self) -> str:
        return self.stack.log("autoscaler").read_text()

    def _until(self, holds: Callable[[], bool], seconds: float, otherwise: str) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            self.stack.check()
            if time.monotonic() > deadline:
                raise MeasurementFailed(f"{otherwise} after {seconds:g} s")
            time.sleep(_POLL_SECONDS)


@contextmanager
def run_idle_stack(
    model: Path, idle_seconds: float, variables: Mapping[str, str], *, standby: bool
) -> Iterator[IdleStack]:
    """Start Redis, the API and the autoscaler as `make run` does, and stop them in the end. Raises StackError."""
    pool = {"idle_seconds": idle_seconds, "standby": standby}
    with Stack(Options(port=0, model=str(model), environment=variables, pool=pool)) as stack:
        stack.start_redis()
        name = stack.start_service().name
        stack.wait_ready(60)
        idle_stack = IdleStack(stack, name, standby)
        idle_stack.until_asleep()
        yield idle_stack
