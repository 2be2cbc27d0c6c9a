"""A launcher of fake workers, and access to heartbeats."""

import itertools
import json
from collections.abc import Callable
from typing import Any

from shared.keys import pool_keys
from shared.models import ModelSpec
from shared.pools.heartbeats import HeartbeatWriter, WorkerState
from worker.autoscaler.launchers import WorkerExit
from worker.autoscaler.worker_process import WorkerOutput, WorkerProcess

_PIDS = itertools.count(10_000_000)
"""Above the largest pid of the kernel, so that signals to fake workers reach no process."""


class FakeProcess:
    def __init__(self) -> None:
        self.pid: int | None = next(_PIDS)
        self.status: int | None = None

    def poll(self) -> int | None:
        return self.status


class FakeLauncher:
    """Starts workers without a process. Raises `error` instead when it is set."""

    acts = True

    def __init__(self) -> None:
        self.running: list[WorkerProcess] = []
        self.started = 0
        self.error: OSError | None = None

    def workers(self, model: str) -> list[WorkerProcess]:
        return [worker for worker in self.running if worker.model == model]

    def start(self, spec: ModelSpec) -> None:
        if self.error is not None:
            raise self.error
        self.running.append(WorkerProcess(spec.name, FakeProcess(), WorkerOutput()))
        self.started += 1

    def reap(self) -> list[WorkerExit]:
        exits = [WorkerExit(worker, status) for worker in self.running if (status := worker.process.poll()) is not None]
        for end in exits:
            self.running.remove(end.worker)
        return exits

    def close(self, forced: Callable[[], bool]) -> list[WorkerExit]:
        for worker in self.running:
            worker.request_stop()
            self.end(worker, 0)
        return self.reap()

    def end(self, worker: WorkerProcess, status: int, *output: str) -> None:
        """End the process of this worker, after it has written these lines."""
        assert isinstance(worker.process, FakeProcess)
        worker.output._lines.extend(output)
        worker.process.status = status


class Heartbeats:
    """Writes and reads heartbeats in Redis."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def write(self, worker: WorkerProcess | str, state: WorkerState, reason: str = "", *, held: int = 0) -> None:
        name = worker if isinstance(worker, str) else worker.name or ""
        model = "test-model" if isinstance(worker, str) else worker.model
        HeartbeatWriter(self._client, model, name).beat(state, reason, held=held)

    def read(self, model: str = "test-model") -> dict[str, dict[str, Any]]:
        """The last heartbeat of each worker."""
        beats = self._client.hgetall(pool_keys.workers(model))
        return {name.decode(): json.loads(payload) for name, payload in beats.items()}

    def age(self, seconds: float, model: str = "test-model") -> None:
        """Move the time of every heartbeat into the past."""
        for name, beat in self.read(model).items():
            self._client.hset(pool_keys.workers(model), name, json.dumps(beat | {"at": beat["at"] - seconds}))
