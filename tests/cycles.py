"""Cycles of a pool from no worker to one and back, with requests in every phase of them: none lost, none too slow.

For whatever stack, engine and way to start a worker. Which phase a pool is in is seen in the process table and in what
its autoscaler says.
"""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx

from infra.local.stack import Stack
from tests.stacks import PANDA, said_by_autoscaler, workers_of
from tests.worker.support import wait_until

SLACK_SECONDS = 0.5
"""What a machine with other things to do may add to a cold start."""


def ask(stack: Stack, **changes: Any) -> httpx.Response:
    """A waiting call with a query of its own."""
    body = PANDA | {"query": f"giant panda {uuid4().hex}"} | changes
    return httpx.post(f"{stack.url}/v1/rerank", json=body, timeout=60)


def check_cycles(stack: Stack, cycles: int, idle_seconds: float, *, standbys: int = 0) -> dict[str, list[float]]:
    """Each cycle has a request at zero, one while the worker starts, one in the countdown, one while it drains.

    Later cycles send theirs later within the phase. Answers how long each took, by phase.
    """
    phases = Phases(stack)
    for cycle in range(cycles):
        share = cycle / cycles
        wait_until(lambda: len(workers_of(stack)) == standbys, seconds=30)
        first = phases.send("zero")
        time.sleep(0.4 * share)
        phases.send("starting").result(timeout=60)
        first.result(timeout=60)
        # Not to its last moment: who comes then may meet a worker that goes, and that is the last phase.
        time.sleep(0.8 * idle_seconds * share)
        phases.send("countdown").result(timeout=60)
        _wait_for_a_stop(stack)
        # Anywhere from the signal to the end of the process, and a little beyond.
        time.sleep(0.3 * share)
        phases.send("draining").result(timeout=60)
    seconds = {phase: phases.seconds(phase) for phase in ("zero", "starting", "countdown", "draining")}
    cold = max(seconds["zero"])
    for phase, taken in seconds.items():
        assert max(taken) <= cold + SLACK_SECONDS, (phase, taken, cold)
    assert max(seconds["countdown"]) < cold
    return seconds


class Phases:
    """Requests sent in every phase of a pool's life, and how long each took."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._threads = ThreadPoolExecutor(8)
        self._sent: dict[str, list[Future[tuple[float, httpx.Response]]]] = {}

    def send(self, phase: str) -> Future[tuple[float, httpx.Response]]:
        future = self._threads.submit(_timed, self._stack)
        self._sent.setdefault(phase, []).append(future)
        return future

    def seconds(self, phase: str) -> list[float]:
        """Raises where a request was lost."""
        taken = []
        for future in self._sent[phase]:
            seconds, answer = future.result(timeout=60)
            assert answer.status_code == 200, answer.text
            assert answer.json()["results"][0]["index"] == 2
            taken.append(seconds)
        return taken


def _timed(stack: Stack) -> tuple[float, httpx.Response]:
    started = time.monotonic()
    answer = ask(stack)
    return time.monotonic() - started, answer


def _wait_for_a_stop(stack: Stack) -> None:
    """Once more than until now."""

    def stops() -> int:
        return sum("stopping" in sentence for sentence in said_by_autoscaler(stack))

    before = stops()
    wait_until(lambda: stops() > before)
