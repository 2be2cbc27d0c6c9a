"""Patches of kombu's Redis transport, each with its reason and what happens without it. See docs/upstream.md.

Without them a foreign message in a queue, or a command that Redis refuses, ends the worker.
"""

import logging
import threading
import time
from typing import Any

import celery.worker.state
import redis
from celery import Celery
from kombu import Connection
from kombu.transport.redis import Channel, QoS, Transport
from kombu.transport.virtual import QoS as VirtualQoS
from redis.exceptions import ResponseError

from shared.keys import PREFIX, queue_keys
from shared.queue.celery_app import VISIBILITY_TIMEOUT_SECONDS
from shared.queue.messages import MessageBuilder, parse_message

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 2


def reconnect_when_refused() -> None:
    """Treat commands that Redis refuses (full, replica, cannot save) as a lost connection, so the consumer reconnects.

    Extends `Transport.connection_errors`. Without it the refused command ends the worker.
    """
    if ResponseError not in Transport.connection_errors:
        Transport.connection_errors = (*Transport.connection_errors, ResponseError)


class ConstantRetryConnection(Connection):
    """Reconnects every CONNECT_SECONDS, however long the outage; kombu's pauses grow to half a minute."""

    def ensure_connection(self, *args: Any, **options: Any) -> Any:
        constant = {"interval_start": CONNECT_SECONDS, "interval_step": 0, "interval_max": CONNECT_SECONDS}
        return super().ensure_connection(*args, **(options | constant))


def use_constant_retry(app: Celery) -> None:
    """Make the app's consumer reconnect at a constant interval. Replaces `app.amqp.Connection`."""
    app.amqp.Connection = ConstantRetryConnection


class TolerantQoS(QoS):
    """Treats a message as acknowledged even when Redis refuses the acknowledgement: it is delivered again later.

    Without it kombu waits for the acknowledgement forever, and a worker with one message at a time never receives
    another one.
    """

    def ack(self, delivery_tag: str) -> None:
        try:
            super().ack(delivery_tag)
        except (redis.RedisError, OSError) as error:
            self._forget(delivery_tag, error)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        try:
            super().reject(delivery_tag, requeue)
        except (redis.RedisError, OSError) as error:
            self._forget(delivery_tag, error)

    def _forget(self, delivery_tag: str, error: Exception) -> None:
        logger.warning("a message could not be acknowledged, it is delivered again: %.200s", error)
        VirtualQoS.ack(self, delivery_tag)


def discard_foreign_messages(messages: MessageBuilder) -> None:
    """Make the consumer skip messages that name no shard, and rebuild the others.

    Installs a response callback for BRPOP in `Transport.Channel`. Celery fails in several ways on malformed messages;
    therefore even a message that names a shard is replaced by a new one. Without it a foreign message ends the worker.
    """

    def only_wake_ups(answer: Any, **_: object) -> tuple[bytes, bytes] | None:
        if not answer:
            return None
        queue, message = answer
        if (named := parse_message(message)) is None:
            # Not its text: a foreign message may contain anything.
            logger.warning("skipped a message in %s that cannot be read", queue.decode())
            return None
        return queue, messages.build(queue.decode().removeprefix(PREFIX), *named)

    class WakeUpChannel(Channel):
        QoS = TolerantQoS

        def _create_client(self, asynchronous: bool = False) -> Any:
            client = super()._create_client(asynchronous)  # type: ignore[misc]
            client.set_response_callback("BRPOP", only_wake_ups)
            return client

    Transport.Channel = WakeUpChannel


class MessageRenewer:
    """Renews the unacknowledged messages of this worker three times per visibility timeout.

    Without it the message of a long task is delivered again, which costs a claim each time (celery#5935, kombu#337).
    """

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
                logger.warning("messages could not be renewed: %.200s", error)
