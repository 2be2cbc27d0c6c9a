"""Workers that are processes in name only, and a launcher that starts them."""

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
"""Above what the kernel gives out: a signal to one of them reaches nobody."""


class FakeProcess:
    def __init__(self) -> None:
        self.pid: int | None = next(_PIDS)
        self.status: int | None = None

    def poll(self) -> int | None:
        return self.status


class FakeLauncher:
    """Starts workers that do nothing; `error` is what it raises instead."""

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
        ended = [WorkerExit(worker, status) for worker in self.running if (status := worker.process.poll()) is not None]
        for end in ended:
            self.running.remove(end.worker)
        return ended

    def close(self, hurry: Callable[[], bool]) -> list[WorkerExit]:
        for worker in self.running:
            worker.request_stop()
            self.end(worker, 0)
        return self.reap()

    def end(self, worker: WorkerProcess, status: int, *last_words: str) -> None:
        """The process of this worker ends."""
        assert isinstance(worker.process, FakeProcess)
        worker.output._lines.extend(last_words)
        worker.process.status = status


class Beats:
    """The heartbeats, as workers write them."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def say(self, worker: WorkerProcess | str, state: WorkerState, reason: str = "", *, held: int = 0) -> None:
        name = worker if isinstance(worker, str) else worker.name or ""
        model = "test-model" if isinstance(worker, str) else worker.model
        HeartbeatWriter(self._client, model, name).beat(state, reason, held=held)

    def said(self, model: str = "test-model") -> dict[str, dict[str, Any]]:
        """The last words, by worker."""
        beats = self._client.hgetall(pool_keys.workers(model))
        return {name.decode(): json.loads(payload) for name, payload in beats.items()}

    def age(self, seconds: float, model: str = "test-model") -> None:
        """They were all said so much earlier."""
        for name, beat in self.said(model).items():
            self._client.hset(pool_keys.workers(model), name, json.dumps(beat | {"at": beat["at"] - seconds}))
