"""Writes the final heartbeat of a worker process that exited or was killed, so that its pool stops counting it.

A worker writes its own heartbeats (shared.pools.heartbeats), including the reason why it could not start. This module
writes only what a dead worker could not. Raises redis.RedisError.
"""

import socket
import time
from collections.abc import Iterable
from typing import NamedTuple

import redis

from shared.keys import pool_keys
from shared.pools.heartbeats import Heartbeat, HeartbeatWriter, WorkerState, read_heartbeats, worker_name
from shared.processes import describe_exit
from worker.autoscaler.launchers import WorkerExit

_REASON_CHARACTERS = 300


class ExitReport(NamedTuple):
    """How a worker ended (stopped, crashed, or failed to start), and a message for the operator."""

    how: str
    message: str


class ExitReporter:
    """Reports the exits of one launcher's workers."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def report_exit(self, end: WorkerExit) -> ExitReport:
        """Record that a worker has ended."""
        worker, name = end.worker, end.worker.name or ""
        began = time.time() - (time.monotonic() - worker.started_at)
        writer = HeartbeatWriter(self._client, worker.model, name, started_at=began)
        last = self._last_heartbeat(worker.model, name)
        how = describe_exit(end.status)
        if last is not None and last.state is WorkerState.FAILED:
            return ExitReport("failed", f"the worker could not start: {last.reason}")
        was_ready = worker.was_ready or (last is not None and last.ready_at > 0)
        if worker.start_failure or not (was_ready or worker.stopping_since is not None):
            reason = worker.start_failure or f"the worker {how} before it was ready: {worker.output.last_line}"
            writer.fail(reason[:_REASON_CHARACTERS])
            return ExitReport("failed", f"the worker could not start: {reason}")
        # A worker that was killed could not remove its heartbeat.
        writer.leave()
        if end.status == 0:
            return ExitReport("stopped", "the worker has stopped")
        return ExitReport("crashed", f"the worker {how}")

    def report_failed_start(self, model: str, error: OSError) -> str:
        """Record that the process of a worker could not be started. Returns a message for the operator."""
        reason = f"the worker's process could not be started: {error}"
        # Under the name of this process, because there is no worker process to name.
        HeartbeatWriter(self._client, model, worker_name()).fail(reason)
        return reason

    def remove_previous_heartbeats(self, models: Iterable[str]) -> None:
        """Remove the heartbeats that workers of this host wrote before this autoscaler started, except failures.

        A worker that is still alive writes its next heartbeat within seconds.
        """
        host = socket.gethostname()
        for model in models:
            beats = read_heartbeats(self._client.hgetall(pool_keys.workers(model)))  # type: ignore[arg-type]
            for beat in beats:
                if beat.worker.rpartition("-")[0] == host and beat.state is not WorkerState.FAILED:
                    self._client.hdel(pool_keys.workers(model), beat.worker)

    def _last_heartbeat(self, model: str, name: str) -> Heartbeat | None:
        payload: bytes | None = self._client.hget(pool_keys.workers(model), name)  # type: ignore[assignment]
        return next(iter(read_heartbeats({} if payload is None else {b"": payload})), None)
