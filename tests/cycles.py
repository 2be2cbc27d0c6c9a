"""Cycles of a pool from zero workers to one and back, with requests in every phase: none is lost or too slow.

Works with any stack, engine and launcher. The process table and the autoscaler's messages show the phase of the pool.
"""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx

from infra.local.stack import Stack
from tests.stacks import PANDA, autoscaler_messages, workers_of
from tests.worker.support import wait_until

SLACK_SECONDS = 0.5
"""How much longer than a cold start a request may take on a busy machine."""


def ask(stack: Stack, **changes: Any) -> httpx.Response:
    """A waiting request with a unique query."""
    body = PANDA | {"query": f"giant panda {uuid4().hex}"} | changes
    return httpx.post(f"{stack.url}/v1/rerank", json=body, timeout=60)


def check_cycles(stack: Stack, cycles: int, idle_seconds: float, *, standbys: int = 0) -> dict[str, list[float]]:
    """Run cycles with a request at zero workers, while the worker starts, while it is idle, and while it drains.

    Later cycles send their requests later within a phase. Returns the seconds that the requests took, by phase.
    """
    phases = Phases(stack)
    for cycle in range(cycles):
        share = cycle / cycles
        wait_until(lambda: len(workers_of(stack)) == standbys, seconds=30)
        first = phases.send("zero")
        time.sleep(0.4 * share)
        phases.send("starting").result(timeout=60)
        first.result(timeout=60)
        # Not until the end of the idle time: a request at that moment may belong to the draining phase.
        time.sleep(0.8 * idle_seconds * share)
        phases.send("countdown").result(timeout=60)
        _wait_for_a_stop(stack)
        # Anywhere between the signal and shortly after the end of the process.
        time.sleep(0.3 * share)
        phases.send("draining").result(timeout=60)
    seconds = {phase: phases.seconds(phase) for phase in ("zero", "starting", "countdown", "draining")}
    cold = max(seconds["zero"])
    for phase, taken in seconds.items():
        assert max(taken) <= cold + SLACK_SECONDS, (phase, taken, cold)
    assert max(seconds["countdown"]) < cold
    return seconds


class Phases:
    """Sends requests and keeps their results by phase."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._threads = ThreadPoolExecutor(8)
        self._sent: dict[str, list[Future[tuple[float, httpx.Response]]]] = {}

    def send(self, phase: str) -> Future[tuple[float, httpx.Response]]:
        future = self._threads.submit(_timed, self._stack)
        self._sent.setdefault(phase, []).append(future)
        return future

    def seconds(self, phase: str) -> list[float]:
        """The seconds that each request of a phase took. Raises when a request failed."""
        taken = []
        for future in self._sent[phase]:
            seconds, response = future.result(timeout=60)
            assert response.status_code == 200, response.text
            assert response.json()["results"][0]["index"] == 2
            taken.append(seconds)
        return taken


def _timed(stack: Stack) -> tuple[float, httpx.Response]:
    started = time.monotonic()
    response = ask(stack)
    return time.monotonic() - started, response


def _wait_for_a_stop(stack: Stack) -> None:
    def stops() -> int:
        return sum("stopping" in message for message in autoscaler_messages(stack))

    before = stops()
    wait_until(lambda: stops() > before)
