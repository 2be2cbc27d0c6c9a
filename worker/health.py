"""The worker's heartbeat: a thread that keeps saying how it stands, and a check of it from outside."""

import logging
import socket
import sys
import threading
import time

import redis

from shared import keys
from shared.heartbeats import INTERVAL_SECONDS, HeartbeatWriter, WorkerState, read_heartbeats
from shared.models import load_models
from shared.redis_client import connect
from worker.settings import WorkerSettings

logger = logging.getLogger(__name__)


class Heart:
    """Beats every few seconds until stopped. A Redis that is away costs a beat, never the worker."""

    def __init__(self, writer: HeartbeatWriter) -> None:
        self._writer = writer
        self._state = WorkerState.STARTING
        self._heard = True
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heart", daemon=True)

    def start(self) -> None:
        """Say that the worker is starting, and go on saying so."""
        self._beat()
        self._thread.start()

    def ready(self) -> None:
        """From now on the worker takes work; what others left behind is cleared away."""
        self._state = WorkerState.READY
        self._beat()
        try:
            self._writer.forget_others()
        except redis.RedisError as error:
            logger.warning("old heartbeats could not be removed: %s", error)

    def fail(self, reason: str) -> None:
        """The worker could not start: the reason is kept for those who ask for its model."""
        self._stop()
        try:
            self._writer.beat(WorkerState.FAILED, reason)
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
        self._stopped.set()
        self._thread.join(timeout=INTERVAL_SECONDS)

    def _run(self) -> None:
        while not self._stopped.wait(INTERVAL_SECONDS):
            self._beat()

    def _beat(self) -> None:
        try:
            self._writer.beat(self._state)
        except redis.RedisError as error:
            if self._heard:
                logger.warning("heartbeats fail from now on: %.200s", error)
            self._heard = False
            return
        if not self._heard:
            logger.warning("heartbeats arrive again")
        self._heard = True


def main() -> int:
    """`python -m worker.health`: status 0 when a worker of this machine takes work, for a container's health check."""
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
    beats = read_heartbeats(client.hgetall(keys.workers(model)))  # type: ignore[arg-type]
    now = time.time()
    return any(
        beat.worker.rpartition("-")[0] == hostname and beat.state is WorkerState.READY and beat.alive(now)
        for beat in beats
    )


if __name__ == "__main__":
    sys.exit(main())
