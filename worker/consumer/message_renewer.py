"""Keeps the Celery messages of long work alive, so that kombu does not deliver them again while the work continues.

Renews messages, not leases: worker.dispatch.leases does that.
"""

import logging
import threading
import time

import celery.worker.state
import redis

from shared.keys import queue_keys
from shared.queue.celery_app import VISIBILITY_TIMEOUT_SECONDS

logger = logging.getLogger(__name__)


class MessageRenewer:
    """Renews the unacknowledged messages of this worker three times per visibility timeout.

    Uses: `celery.worker.state.reserved_requests` (public name) and kombu's key `unacked_index` (internal).
    Why: kombu never renews a message itself (celery#5935, kombu#337).
    When it stops working: the message of a long task is delivered again, which costs a claim each time.
    """

    def __init__(self, client: redis.Redis, interval_seconds: float = VISIBILITY_TIMEOUT_SECONDS / 3) -> None:
        self._client = client
        self._interval_seconds = interval_seconds
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="message-renewer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(timeout=5)

    def renew(self) -> None:
        """Renew all messages once. Raises redis.RedisError."""
        requests = list(celery.worker.state.reserved_requests)
        tags = {request.delivery_info.get("delivery_tag") or request.message.delivery_tag for request in requests}
        if tags:
            # XX: a message that was acknowledged meanwhile must not be added again.
            self._client.zadd(queue_keys.UNACKED_INDEX, {str(tag): time.time() for tag in tags}, xx=True)

    def _run(self) -> None:
        while not self._stopped.wait(self._interval_seconds):
            try:
                self.renew()
            except RuntimeError:
                # Celery changed its set during the iteration: retry in the next round.
                continue
            except redis.RedisError as error:
                logger.warning("messages could not be renewed", extra={"error": error})
