"""Writes the worker's heartbeat from a thread, and checks it from outside (`python -m worker.process.health`)."""

import logging
import socket
import sys
import threading
import time
from collections.abc import Callable

import redis

from shared.keys import pool_keys
from shared.models import load_models
from shared.pools.heartbeats import INTERVAL_SECONDS, HeartbeatWriter, WorkerState, read_heartbeats
from shared.store.client import connect
from worker.dispatch.throughput import ThroughputMeter
from worker.settings import WorkerSettings

logger = logging.getLogger(__name__)


class HeartbeatThread:
    """Writes a heartbeat every few seconds until stopped. An unreachable Redis does not stop the worker."""

    def __init__(self, writer: HeartbeatWriter, push_metrics: Callable[[], None] = lambda: None) -> None:
        """`push_metrics` is called after each heartbeat. Raises redis.RedisError."""
        self.throughput = ThroughputMeter()
        self.dtype: str | None = None
        """The precision of the loaded model; set it before `ready`."""
        self._writer = writer
        self._push_metrics = push_metrics
        self._state = WorkerState.STARTING
        self._pool_ready_at: float | None = None
        self._reachable = True
        self._stopped = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Write heartbeats from now on, with the state `starting`."""
        self._beat()
        self._thread.start()

    def ready(self) -> None:
        """Set the state `ready`, and remove stale heartbeats of other workers."""
        self._state = WorkerState.READY
        self._pool_ready_at = time.monotonic()
        self._beat()
        try:
            others = self._writer.remove_stale()
        except redis.RedisError as error:
            logger.warning("old heartbeats could not be removed", extra={"error": error})
            return
        # Another worker's clock may be ahead: its time can only move the start of readiness to an earlier time.
        since = [time.time() - beat.ready_at for beat in others if beat.state is WorkerState.READY and beat.ready_at]
        self._pool_ready_at -= max([0.0, *since])

    def drain(self) -> None:
        """Set the state `draining`; the thread writes it at once. Safe in a signal handler."""
        self._state = WorkerState.DRAINING
        self._wake.set()

    def start_ms(self, queue_ms: float) -> float:
        """The part of a shard's time in the queue, ending now, before the pool had a ready worker. Both in ms.

        Knows of the workers that were ready when this worker became ready.
        """
        if self._pool_ready_at is None:
            return 0.0
        return round(max(0.0, queue_ms - (time.monotonic() - self._pool_ready_at) * 1000), 1)

    def fail(self, reason: str) -> None:
        """Stop, and store that the worker could not start, with the reason for the model's callers."""
        self._stop()
        try:
            self._writer.fail(reason)
        except redis.RedisError as error:
            logger.warning("the failure could not be recorded", extra={"error": error})

    def leave(self) -> None:
        """Stop, and remove the heartbeat."""
        self._stop()
        try:
            self._push_metrics()
            self._writer.leave()
        except redis.RedisError as error:
            logger.warning("the heartbeat could not be removed", extra={"error": error})

    def _stop(self) -> None:
        self._stopped = True
        self._wake.set()
        self._thread.join(timeout=INTERVAL_SECONDS)

    def _run(self) -> None:
        while True:
            self._wake.wait(INTERVAL_SECONDS)
            if self._stopped:
                return
            self._wake.clear()
            self._beat()

    def _beat(self) -> None:
        try:
            self._writer.beat(
                self._state,
                held=self.throughput.held,
                tokens_per_second=self.throughput.tokens_per_second(),
                dtype=self.dtype,
            )
            self._push_metrics()
        except redis.RedisError as error:
            if self._reachable:
                logger.warning("heartbeats cannot be written", extra={"error": error})
            self._reachable = False
            return
        if not self._reachable:
            logger.warning("heartbeats can be written again")
        self._reachable = True


def main() -> int:
    """`python -m worker.process.health`: exits with 0 when a worker of this host accepts work."""
    settings = WorkerSettings.from_environment()
    model = load_models(settings.models_file).resolve(settings.model).name
    client = connect(settings.redis_url)
    try:
        healthy = is_ready_here(client, model, socket.gethostname())
    finally:
        client.close()
    print("ready" if healthy else "not ready")
    return 0 if healthy else 1


def is_ready_here(client: redis.Redis, model: str, hostname: str) -> bool:
    """Whether a worker of this host is ready, by its last heartbeat. Raises redis.RedisError."""
    beats = read_heartbeats(client.hgetall(pool_keys.workers(model)))  # type: ignore[arg-type]
    now = time.time()
    return any(
        beat.worker.rpartition("-")[0] == hostname and beat.state is WorkerState.READY and beat.alive(now)
        for beat in beats
    )


if __name__ == "__main__":
    sys.exit(main())
