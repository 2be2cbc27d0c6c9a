"""The faults that are injected while a batch runs. Each leaves every process running."""

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from functools import partial

import psutil

from tests.chaos.batches.runners import find_holder, has_ended
from tests.chaos.cluster import Slot
from tests.chaos.fault_context import FaultContext

_RUNNER_END_SECONDS = 10.0
_NO_WORKER_SECONDS = 3.0
_REDIS_DOWN_SECONDS = (0.3, 1.5)


class Step(StrEnum):
    """One fault, by the name that the report shows."""

    WORKER = "worker"
    API = "API"
    RUNNER = "runner"
    REDIS = "Redis"
    NO_WORKERS = "no workers"


def inject(context: FaultContext, batch_id: str, step: Step) -> float:
    """Inject the fault and count it. Returns when it happened, or for a lack of workers when it ended."""
    return _STEPS[step](context, batch_id)


def _kill_worker(context: FaultContext, _: str) -> float:
    """Kill a worker that holds shards."""
    slots = context.pick_workers(1)
    injected_at = time.monotonic()
    context.kill(slots)
    return injected_at


def _kill_runner(context: FaultContext, batch_id: str) -> float:
    """Kill the runner of the batch. Its lease has to expire."""
    runner = find_holder(context, batch_id)
    injected_at = time.monotonic()
    if runner is None:
        context.row.wrong.append("no process runs the batch")
    else:
        with suppress(psutil.NoSuchProcess):
            runner.kill()
            context.row.faults += 1
    return injected_at


def _kill_api(context: FaultContext, batch_id: str) -> float:
    """Kill the API process that started the runner of the batch. The runner must end by itself."""
    runner = find_holder(context, batch_id)
    slot = context.rng.choice(context.cluster.apis) if runner is None else _parent_of(context, runner)
    # The supervisor kills what a process has left behind before it replaces the process.
    context.cluster.suspend([slot])
    injected_at = time.monotonic()
    slot.end(signal.SIGKILL)
    context.row.faults += 1
    try:
        if runner is not None and not context.wait_until(partial(has_ended, runner), _RUNNER_END_SECONDS):
            context.row.wrong.append(f"the runner has not ended {_RUNNER_END_SECONDS:g} s after its API process")
    finally:
        context.cluster.resume([slot])
    return injected_at


def _parent_of(context: FaultContext, runner: psutil.Process) -> Slot:
    with suppress(psutil.NoSuchProcess):
        parent = runner.ppid()
        for slot in context.cluster.apis:
            if slot.pid == parent:
                return slot
    return context.rng.choice(context.cluster.apis)


def _kill_redis(context: FaultContext, _: str) -> float:
    """Kill Redis with SIGKILL, and start it a moment later with its append-only file."""
    injected_at = time.monotonic()
    context.cluster.stop_redis(signal.SIGKILL)
    context.row.faults += 1
    try:
        context.sleep(context.rng.uniform(*_REDIS_DOWN_SECONDS))
    finally:
        context.cluster.start_redis()
    return injected_at


def _stop_workers(context: FaultContext, _: str) -> float:
    """Run no worker for a few seconds."""
    context.cluster.stop_workers()
    context.row.faults += 1
    try:
        context.sleep(_NO_WORKER_SECONDS)
    finally:
        context.cluster.resume(context.cluster.workers)
    return time.monotonic()


_STEPS: dict[Step, Callable[[FaultContext, str], float]] = {
    Step.WORKER: _kill_worker,
    Step.API: _kill_api,
    Step.RUNNER: _kill_runner,
    Step.REDIS: _kill_redis,
    Step.NO_WORKERS: _stop_workers,
}
