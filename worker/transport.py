"""What kombu's Redis transport does not do for itself: keep the messages of long work, and live through a full Redis.

A message that is neither acknowledged nor renewed within the visibility timeout is delivered again. That costs a claim
and harms nobody, but a long backlog of it would be work for nothing.
"""

import logging
import threading
import time

import celery.worker.state
import redis
from kombu.transport.redis import Transport
from redis.exceptions import OutOfMemoryError

from shared import keys
from shared.celery_app import VISIBILITY_TIMEOUT_SECONDS

logger = logging.getLogger(__name__)


def live_through_full_memory() -> None:
    """Have the consumer connect again when Redis is out of memory; as kombu is, that is the end of the worker."""
    if OutOfMemoryError not in Transport.connection_errors:
        Transport.connection_errors = (*Transport.connection_errors, OutOfMemoryError)


class MessageRenewer:
    """Renews the messages in this worker's hands three times a visibility timeout."""

    def __init__(self, client: redis.Redis, interval_seconds: float = VISIBILITY_TIMEOUT_SECONDS / 3) -> None:
        self._client = client
        self._interval_seconds = interval_seconds
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="messages", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(timeout=5)

    def renew(self) -> None:
        """Raises redis.RedisError."""
        requests = list(celery.worker.state.reserved_requests)
        tags = {request.delivery_info.get("delivery_tag") or request.message.delivery_tag for request in requests}
        if tags:
            # XX: one that was acknowledged meanwhile must not come back.
            self._client.zadd(keys.UNACKED_INDEX, {str(tag): time.time() for tag in tags}, xx=True)

    def _run(self) -> None:
        while not self._stopped.wait(self._interval_seconds):
            try:
                self.renew()
            except RuntimeError:
                # Celery changed its set while it was read: the next round is soon enough.
                continue
            except redis.RedisError as error:
                logger.warning("messages could not be renewed: %.200s", error)
