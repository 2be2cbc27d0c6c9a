"""What kombu's Redis transport does not do for itself: keep the messages of long work, and live through what it meets.

A queue may hold anything, and Redis may refuse anything: as kombu is, either ends the worker.

A message that is neither acknowledged nor renewed within the visibility timeout is delivered again. That costs a claim
and harms nobody, but a long backlog of it would be work for nothing.
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
    """Have the consumer connect again when Redis refuses, because it is full, a replica or cannot save."""
    if ResponseError not in Transport.connection_errors:
        Transport.connection_errors = (*Transport.connection_errors, ResponseError)


class ConstantRetryConnection(Connection):
    """Tries again every other second, however long Redis was away; kombu's own pauses grow to half a minute."""

    def ensure_connection(self, *args: Any, **options: Any) -> Any:
        steady = {"interval_start": CONNECT_SECONDS, "interval_step": 0, "interval_max": CONNECT_SECONDS}
        return super().ensure_connection(*args, **(options | steady))


def use_constant_retry(app: Celery) -> None:
    """Have the app's consumer do so."""
    app.amqp.Connection = ConstantRetryConnection


class TolerantQoS(QoS):
    """Is done with a message whether or not Redis hears of it: one that it does not hear of is delivered again.

    As kombu is, a refused acknowledgement is still to come, for ever: a worker that has one message at a time would
    never take another one.
    """

    def ack(self, delivery_tag: str) -> None:
        try:
            super().ack(delivery_tag)
        except (redis.RedisError, OSError) as error:
            self._be_done(delivery_tag, error)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        try:
            super().reject(delivery_tag, requeue)
        except (redis.RedisError, OSError) as error:
            self._be_done(delivery_tag, error)

    def _be_done(self, delivery_tag: str, error: Exception) -> None:
        logger.warning("a message could not be acknowledged, it will be delivered again: %.200s", error)
        VirtualQoS.ack(self, delivery_tag)


def discard_foreign_messages(messages: MessageBuilder) -> None:
    """Have the consumer leave out of a queue what names no shard.

    Of what does, nothing else is believed: Celery, which fails in many ways on a message that is not its own, gets a
    fresh one.
    """

    def only_doorbells(answer: Any, **_: object) -> tuple[bytes, bytes] | None:
        if not answer:
            return None
        queue, message = answer
        if (named := parse_message(message)) is None:
            # Without its text: what is no message of ours may say anything.
            logger.warning("a message in %s cannot be read, it is left out", queue.decode())
            return None
        return queue, messages.build(queue.decode().removeprefix(PREFIX), *named)

    class DoorbellChannel(Channel):
        QoS = TolerantQoS

        def _create_client(self, asynchronous: bool = False) -> Any:
            client = super()._create_client(asynchronous)  # type: ignore[misc]
            client.set_response_callback("BRPOP", only_doorbells)
            return client

    Transport.Channel = DoorbellChannel


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
            self._client.zadd(queue_keys.UNACKED_INDEX, {str(tag): time.time() for tag in tags}, xx=True)

    def _run(self) -> None:
        while not self._stopped.wait(self._interval_seconds):
            try:
                self.renew()
            except RuntimeError:
                # Celery changed its set while it was read: the next round is soon enough.
                continue
            except redis.RedisError as error:
                logger.warning("messages could not be renewed: %.200s", error)
