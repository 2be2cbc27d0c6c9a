"""Patches of kombu's Redis transport. Each one names what it replaces, why, and what happens when it stops working.

docs/upstream.md lists them with the versions they were tested with. No upstream issue is known for any of them.
"""

import logging
from typing import Any

import redis
from celery import Celery
from kombu import Connection
from kombu.transport.redis import Channel, QoS, Transport
from kombu.transport.virtual import QoS as VirtualQoS
from redis.exceptions import ResponseError

from shared.keys import PREFIX
from shared.queue.messages import MessageBuilder, parse_message

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 2
"""The pause between attempts to connect to Redis."""


def reconnect_when_refused() -> None:
    """Make the consumer reconnect when Redis refuses a command (out of memory, replica, cannot save).

    Extends: `kombu.transport.redis.Transport.connection_errors` (public name).
    Why: kombu does not treat a refused command as a lost connection, so the error ends the worker.
    When it stops working: the worker ends when Redis refuses a command, and the autoscaler starts another one.
    """
    if ResponseError not in Transport.connection_errors:
        Transport.connection_errors = (*Transport.connection_errors, ResponseError)


class ConstantRetryConnection(Connection):
    """Reconnects every CONNECT_SECONDS, regardless of how long Redis has been unreachable."""

    def ensure_connection(self, *args: Any, **options: Any) -> Any:
        constant = {"interval_start": CONNECT_SECONDS, "interval_step": 0, "interval_max": CONNECT_SECONDS}
        return super().ensure_connection(*args, **(options | constant))


def use_constant_retry(app: Celery) -> None:
    """Make the app's consumer reconnect at a constant interval.

    Replaces: `app.amqp.Connection` (public name), used by Celery for every connection.
    Why: kombu's pauses between attempts grow to 30 s, and Celery has no setting for them.
    When it stops working: the worker reconnects up to 30 s later.
    """
    app.amqp.Connection = ConstantRetryConnection


class TolerantQoS(QoS):
    """Treats a message as acknowledged even when Redis refuses the acknowledgement; it is delivered again later.

    Replaces: `Channel.QoS` (public name), and calls `kombu.transport.virtual.QoS.ack` directly.
    Why: kombu keeps counting the message as unacknowledged, and this worker receives one message at a time.
    When it stops working: after a refused acknowledgement the worker receives no message until it reconnects.
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
        logger.warning("a message could not be acknowledged, it is delivered again", extra={"error": error})
        VirtualQoS.ack(self, delivery_tag)


def discard_foreign_messages(messages: MessageBuilder) -> None:
    """Make the consumer skip messages that name no shard, and rebuild the others. Also installs TolerantQoS.

    Replaces: `kombu.transport.redis.Transport.Channel` (public name). Overrides its `_create_client` (private name), to
    install a response callback for BRPOP.
    Why: Celery fails in several ways on malformed messages, also on those that name a shard.
    When it stops working: a foreign message in a queue ends the worker.
    """

    def keep_wake_ups(reply: Any, **_: object) -> tuple[bytes, bytes] | None:
        if not reply:
            return None
        queue, message = reply
        if (named := parse_message(message)) is None:
            # Do not log its text: a foreign message may contain anything.
            logger.warning("skipped a message that cannot be read", extra={"queue": queue.decode()})
            return None
        return queue, messages.build(queue.decode().removeprefix(PREFIX), *named)

    class WakeUpChannel(Channel):
        QoS = TolerantQoS

        def _create_client(self, asynchronous: bool = False) -> Any:
            client = super()._create_client(asynchronous)  # type: ignore[misc]
            client.set_response_callback("BRPOP", keep_wake_ups)
            return client

    Transport.Channel = WakeUpChannel
