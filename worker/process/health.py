"""The worker's heartbeat: a thread that says how it stands and how fast it is, and a check of it from outside."""

import logging
import socket
import sys
import threading
import time

import redis

from shared.keys import pool_keys
from shared.models import load_models
from shared.pools.heartbeats import INTERVAL_SECONDS, HeartbeatWriter, WorkerState, read_heartbeats
from shared.store.client import connect
from worker.dispatch.throughput import ThroughputMeter
from worker.settings import WorkerSettings

logger = logging.getLogger(__name__)


class HeartbeatThread:
    """Beats every few seconds until stopped. A Redis that is away costs a beat, never the worker."""

    def __init__(self, writer: HeartbeatWriter) -> None:
        self.pace = ThroughputMeter()
        self._writer = writer
        self._state = WorkerState.STARTING
        self._pool_ready_at: float | None = None
        self._heard = True
        self._stopped = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heart", daemon=True)

    def start(self) -> None:
        """Say that the worker is starting, and go on saying so."""
        self._beat()
        self._thread.start()

    def ready(self) -> None:
        """From now on the worker takes work; what others left behind is cleared away."""
        self._state = WorkerState.READY
        self._pool_ready_at = time.monotonic()
        self._beat()
        try:
            others = self._writer.remove_stale()
        except redis.RedisError as error:
            logger.warning("old heartbeats could not be removed: %s", error)
            return
        # Their clocks may be wrong, so none of them makes it later.
        since = [time.time() - beat.ready_at for beat in others if beat.state is WorkerState.READY and beat.ready_at]
        self._pool_ready_at -= max([0.0, *since])

    def drain(self) -> None:
        """From now on the worker takes nothing new; it is said soon. Safe in a signal's handler."""
        self._state = WorkerState.DRAINING
        self._wake.set()

    def start_ms(self, queue_ms: float) -> float:
        """For how much of a wait that ends now no worker of the pool was ready, as far as this one knows."""
        if self._pool_ready_at is None:
            return 0.0
        return round(max(0.0, queue_ms - (time.monotonic() - self._pool_ready_at) * 1000), 1)

    def fail(self, reason: str) -> None:
        """The worker could not start: the reason is kept for those who ask for its model."""
        self._stop()
        try:
            self._writer.fail(reason)
        except redis.RedisError as error:
            logger.warning("the failure could not be recorded: %s", error)

    def leave(self) -> None:
        """The worker goes, and says so."""
        self._stop()
        try:
            self._writer.leave()
        except redis.RedisError as error:
            logger.warning("the heartbeat could not be removed: %s", error)

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
            self._writer.beat(self._state, held=self.pace.held, tokens_per_second=self.pace.tokens_per_second())
        except redis.RedisError as error:
            if self._heard:
                logger.warning("heartbeats fail from now on: %.200s", error)
            self._heard = False
            return
        if not self._heard:
            logger.warning("heartbeats arrive again")
        self._heard = True


def main() -> int:
    """`python -m worker.process.health`: status 0 when a worker of this machine takes work (a health check)."""
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
    """Whether a worker of this host has lately said that it is ready. Raises redis.RedisError."""
    beats = read_heartbeats(client.hgetall(pool_keys.workers(model)))  # type: ignore[arg-type]
    now = time.time()
    return any(
        beat.worker.rpartition("-")[0] == hostname and beat.state is WorkerState.READY and beat.alive(now)
        for beat in beats
    )


if __name__ == "__main__":
    sys.exit(main())
