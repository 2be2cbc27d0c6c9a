"""One cycle of a pool, from no worker to one and back, as it happens: who waits, and what runs for it.

Owns the callers of the cycle and the samples. What is sampled is the process table and the ledger, not what the
service says of itself.
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
"""Between the calls while the worker starts."""
_GAP_AFTER_SECONDS = 0.3
_CALLS_AFTER = 15
_MOST_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Sample:
    """What there was `at` seconds after the beginning: requests not answered, and worker processes.

    One is `starting` until it has said that it is ready, and `stopping` when it says that no more.
    """

    at: float
    waiting: int
    starting: int
    ready: int
    stopping: int = 0


@dataclass(frozen=True, slots=True)
class Cycle:
    """`samples` are those in which something changed, and the last one; `idle_seconds` is the pool's setting.

    `calls` has of each call when it came, and how many seconds it took.
    """

    samples: list[Sample]
    calls: list[tuple[float, float]]
    idle_seconds: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def record(sleeper: IdleStack, idle_seconds: float) -> Cycle:
    """Let a cycle happen and watch it. Raises MeasurementFailed when a call gets no ranking."""
    sleeper.until_asleep()
    began = time.monotonic()
    watch = _Watch(sleeper, began)
    watch.start()
    try:
        time.sleep(_BEFORE_SECONDS)
        calls = _call(sleeper, began)
        sleeper.until_asleep()
        time.sleep(_AFTER_SECONDS)
    finally:
        watch.stop()
    return Cycle(changes(watch.samples), calls, idle_seconds)


def changes(samples: list[Sample]) -> list[Sample]:
    """Those that differ from the one before, and the last one."""
    kept: list[Sample] = []
    for sample in samples:
        if not kept or replace(sample, at=kept[-1].at) != kept[-1]:
            kept.append(sample)
    return kept if kept[-1:] == samples[-1:] else [*kept, samples[-1]]


def _call(sleeper: IdleStack, began: float) -> list[tuple[float, float]]:
    def one(number: int) -> tuple[float, float]:
        body = {"model": sleeper.model, "query": f"call {number}", "documents": ["a giant panda", "bamboo"]}
        at = time.monotonic()
        status, answer = post(sleeper.stack.port, "/v1/rerank", json.dumps(body))
        if status != 200:
            raise MeasurementFailed(f"call {number} was answered {status}: {answer[:300]!r}")
        return round(at - began, 3), round(time.monotonic() - at, 3)

    with ThreadPoolExecutor(_MOST_AT_ONCE) as threads:
        running = [threads.submit(one, 0)]
        while wait(running[:1], _GAP_BEFORE_SECONDS).not_done and len(running) < _MOST_AT_ONCE:
            running.append(threads.submit(one, len(running)))
        wait(running[:1])
        for _ in range(_CALLS_AFTER):
            time.sleep(_GAP_AFTER_SECONDS)
            running.append(threads.submit(one, len(running)))
        return [call.result() for call in running]


class _Watch:
    """Samples on a thread of its own."""

    def __init__(self, sleeper: IdleStack, began: float) -> None:
        self.samples: list[Sample] = []
        self._sleeper = sleeper
        self._began = began
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        with redis.Redis.from_url(self._sleeper.stack.redis_url) as client:
            while not self._stopped.wait(SAMPLE_SECONDS):
                signals = read_signals_blocking(client, [self._sleeper.model], time.time())[self._sleeper.model]
                processes = self._sleeper.workers()
                ready = min(signals.ready, processes)
                # There is one worker in a cycle, and it is ready once.
                was_ready = ready or any(sample.ready for sample in self.samples)
                starting, stopping = (0, processes - ready) if was_ready else (processes, 0)
                at = round(time.monotonic() - self._began, 3)
                self.samples.append(Sample(at, signals.interactive.jobs, starting, ready, stopping))
