"""What is written in the name of workers that cannot speak any more, so that nobody counts on them.

A worker says itself how it stands, also why it could not start. What it does not get to say is said here, beside the
words of the others: see shared.pools.heartbeats. Raises redis.RedisError.
"""

import socket
import time
from collections.abc import Iterable

import redis

from shared.keys import pool_keys
from shared.pools.heartbeats import Heartbeat, HeartbeatWriter, WorkerState, read_heartbeats, worker_name
from shared.processes import describe_exit
from worker.autoscaler.launchers import WorkerExit

_REASON_CHARACTERS = 300


class ExitReporter:
    """Those of one launcher's workers."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def note(self, end: WorkerExit) -> str:
        """Write down the end of a worker; answers it in words."""
        worker, name = end.worker, end.worker.name or ""
        began = time.time() - (time.monotonic() - worker.started_at)
        writer = HeartbeatWriter(self._client, worker.model, name, started_at=began)
        last = self._last_word(worker.model, name)
        how = describe_exit(end.status)
        if last is not None and last.state is WorkerState.FAILED:
            return f"the worker could not start: {last.reason}"
        was_ready = worker.was_ready or (last is not None and last.ready_at > 0)
        if worker.gave_up or not (was_ready or worker.stopping_since is not None):
            reason = worker.gave_up or f"the worker {how} before it was ready: {worker.output.last_line}"
            writer.fail(reason[:_REASON_CHARACTERS])
            return f"the worker could not start: {reason}"
        # One that was killed could not say goodbye.
        writer.leave()
        return "the worker has stopped" if end.status == 0 else f"the worker {how}"

    def no_process(self, model: str, error: OSError) -> str:
        """Write down that a worker could not even be started; answers it in words."""
        reason = f"the worker's process could not be started: {error}"
        # In our own name, for it has none.
        HeartbeatWriter(self._client, model, worker_name()).fail(reason)
        return reason

    def forget_predecessors(self, models: Iterable[str]) -> None:
        """Remove what workers of this host have said before there was any of ours: who did not live to take it back
        is dead, and who lives says it again within seconds."""
        host = socket.gethostname()
        for model in models:
            beats = read_heartbeats(self._client.hgetall(pool_keys.workers(model)))  # type: ignore[arg-type]
            for beat in beats:
                if beat.worker.rpartition("-")[0] == host and beat.state is not WorkerState.FAILED:
                    self._client.hdel(pool_keys.workers(model), beat.worker)

    def _last_word(self, model: str, name: str) -> Heartbeat | None:
        payload: bytes | None = self._client.hget(pool_keys.workers(model), name)  # type: ignore[assignment]
        return next(iter(read_heartbeats({} if payload is None else {b"": payload})), None)
