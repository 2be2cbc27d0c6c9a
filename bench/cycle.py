"""Records one cycle of a pool, from zero workers to one and back: waiting requests and worker processes over time.

It sends the requests of the cycle, and samples the process table and the ledger. It does not use what the service
reports about itself.
"""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from typing import Any

import redis

from bench.generator import MeasurementFailed
from bench.idle_stack import IdleStack
from bench.servers import post
from shared.pools.signals import read_signals_blocking

SAMPLE_SECONDS = 0.05
_BEFORE_SECONDS = 2.0
_AFTER_SECONDS = 2.0
_GAP_BEFORE_SECONDS = 1.2
"""The interval between calls while the worker starts."""
_GAP_AFTER_SECONDS = 0.3
_CALLS_AFTER = 15
_MOST_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Sample:
    """The numbers of waiting requests and of worker processes, `at` seconds after the beginning.

    A worker counts as `starting` until its heartbeat says ready, and as `stopping` when its heartbeat no longer does.
    """

    at: float
    waiting: int
    starting: int
    ready: int
    stopping: int = 0


@dataclass(frozen=True, slots=True)
class Cycle:
    """`samples` are those that differ from the one before, and the last one; `idle_seconds` is the pool's setting.

    `calls` has (time of sending, latency) of each call, in seconds.
    """

    samples: list[Sample]
    calls: list[tuple[float, float]]
    idle_seconds: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def record(idle_stack: IdleStack, idle_seconds: float) -> Cycle:
    """Run one cycle and record it. Raises MeasurementFailed when a call fails."""
    idle_stack.until_asleep()
    began = time.monotonic()
    sampler = _Sampler(idle_stack, began)
    sampler.start()
    try:
        time.sleep(_BEFORE_SECONDS)
        calls = _call(idle_stack, began)
        idle_stack.until_asleep()
        time.sleep(_AFTER_SECONDS)
    finally:
        sampler.stop()
    return Cycle(changes(sampler.samples), calls, idle_seconds)


def changes(samples: list[Sample]) -> list[Sample]:
    """Return the samples that differ from the one before, and the last one."""
    kept: list[Sample] = []
    for sample in samples:
        if not kept or replace(sample, at=kept[-1].at) != kept[-1]:
            kept.append(sample)
    return kept if kept[-1:] == samples[-1:] else [*kept, samples[-1]]


def _call(idle_stack: IdleStack, began: float) -> list[tuple[float, float]]:
    def call(number: int) -> tuple[float, float]:
        body = {"model": idle_stack.model, "query": f"call {number}", "documents": ["a giant panda", "bamboo"]}
        at = time.monotonic()
        status, response = post(idle_stack.stack.port, "/v1/rerank", json.dumps(body))
        if status != 200:
            raise MeasurementFailed(f"call {number} got {status}: {response[:300]!r}")
        return round(at - began, 3), round(time.monotonic() - at, 3)

    with ThreadPoolExecutor(_MOST_AT_ONCE) as threads:
        running = [threads.submit(call, 0)]
        while wait(running[:1], _GAP_BEFORE_SECONDS).not_done and len(running) < _MOST_AT_ONCE:
            running.append(threads.submit(call, len(running)))
        wait(running[:1])
        for _ in range(_CALLS_AFTER):
            time.sleep(_GAP_AFTER_SECONDS)
            running.append(threads.submit(call, len(running)))
        return [future.result() for future in running]


class _Sampler:
    """Takes samples on its own thread."""

    def __init__(self, idle_stack: IdleStack, began: float) -> None:
        self.samples: list[Sample] = []
        self._idle_stack = idle_stack
        self._began = began
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        with redis.Redis.from_url(self._idle_stack.stack.redis_url) as client:
            while not self._stopped.wait(SAMPLE_SECONDS):
                signals = read_signals_blocking(client, [self._idle_stack.model], time.time())[self._idle_stack.model]
                processes = self._idle_stack.workers()
                ready = min(signals.ready, processes)
                # A cycle has one worker, which becomes ready once.
                was_ready = ready or any(sample.ready for sample in self.samples)
                starting, stopping = (0, processes - ready) if was_ready else (processes, 0)
                at = round(time.monotonic() - self._began, 3)
                self.samples.append(Sample(at, signals.interactive.jobs, starting, ready, stopping))
