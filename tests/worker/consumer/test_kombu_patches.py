import threading
import time
from collections.abc import Iterator
from typing import Any

import celery.worker.state
import kombu.utils.functional
import pytest
import redis
from kombu import Connection
from kombu.exceptions import OperationalError
from kombu.transport.redis import Transport
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError

from shared.contracts import WorkClass
from shared.keys import queue_keys
from shared.queue.celery_app import make_celery, pool_queues
from shared.queue.messages import MessageBuilder
from shared.store.client import connect
from tests.shared.support import MODEL, dead_redis_url
from tests.worker.support import wait_until
from worker.consumer.kombu_patches import CONNECT_SECONDS, MessageRenewer, reconnect_when_refused, use_constant_retry

QUEUE = queue_keys.queue_name(MODEL, WorkClass.INTERACTIVE)


class Request:
    """What Celery keeps of a message in work, as far as it matters here."""

    def __init__(self, message: Any) -> None:
        self.message = message
        self.delivery_info = {"exchange": "", "routing_key": QUEUE, "priority": 0, "redelivered": False}


class Consumer:
    """Takes messages as the worker's consumer does: through kombu, unacknowledged until their work is done."""

    def __init__(self, connection: Connection, client: Any, messages: MessageBuilder) -> None:
        self._channel: Any = connection.channel()
        self._client = client
        self._envelopes = messages

    def take(self, job_id: str = "job-1") -> Any:
        self._client.lpush(queue_keys.queue(MODEL, WorkClass.INTERACTIVE), self._envelopes.build(QUEUE, job_id, 0))
        return self._channel.basic_get(QUEUE)

    def delivered_at(self, message: Any) -> float | None:
        score = self._client.zscore(queue_keys.UNACKED_INDEX, message.delivery_tag)
        return None if score is None else float(score)

    def age(self, message: Any) -> None:
        """A long time passes while the message is in work."""
        self._client.zadd(queue_keys.UNACKED_INDEX, {message.delivery_tag: 1}, xx=True)


@pytest.fixture
def consumer(redis_url: str, redis_client: redis.Redis) -> Iterator[Consumer]:
    app = make_celery(redis_url)
    app.conf.task_queues = pool_queues(MODEL)
    with app.connection_for_read() as connection:
        yield Consumer(connection, redis_client, MessageBuilder(app))
    app.close()


@pytest.fixture(autouse=True)
def reserved() -> Iterator[set[Any]]:
    """What Celery has in work, strongly held as its threads do; forgotten afterwards."""
    mine: set[Any] = set()
    yield mine
    for request in mine:
        celery.worker.state.reserved_requests.discard(request)


def reserve(reserved: set[Any], *messages: Any) -> None:
    requests: Any = celery.worker.state.reserved_requests
    for message in messages:
        request = Request(message)
        reserved.add(request)
        requests.add(request)


def test_messages_in_work_are_renewed_together(
    consumer: Consumer, redis_client: redis.Redis, reserved: set[Any]
) -> None:
    messages = [consumer.take(f"job-{number}") for number in range(3)]
    reserve(reserved, *messages)
    for message in messages:
        consumer.age(message)
    MessageRenewer(redis_client).renew()
    for message in messages:
        assert consumer.delivered_at(message) == pytest.approx(time.time(), abs=5)


def test_a_message_that_was_acknowledged_meanwhile_does_not_come_back(
    consumer: Consumer, redis_client: Any, reserved: set[Any]
) -> None:
    message, other = consumer.take("job-1"), consumer.take("job-2")
    reserve(reserved, message, other)
    message.ack()
    MessageRenewer(redis_client).renew()
    assert consumer.delivered_at(message) is None
    assert redis_client.zcard(queue_keys.UNACKED_INDEX) == 1


def test_what_is_not_in_work_here_is_not_renewed(consumer: Consumer, redis_client: redis.Redis) -> None:
    """It is another worker's, or its worker is dead."""
    message = consumer.take()
    consumer.age(message)
    MessageRenewer(redis_client).renew()
    assert consumer.delivered_at(message) == 1


def test_without_anything_in_work_redis_is_left_alone() -> None:
    with connect(dead_redis_url()) as client:
        MessageRenewer(client).renew()


def test_it_goes_on_until_it_is_stopped_also_when_redis_is_away_for_a_moment(
    consumer: Consumer, redis_client: Any, reserved: set[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    message = consumer.take()
    reserve(reserved, message)
    away = threading.Event()
    zadd = redis_client.zadd

    def unless_away(*args: Any, **options: Any) -> Any:
        if not away.is_set():
            away.set()
            raise redis.ConnectionError("away")
        return zadd(*args, **options)

    monkeypatch.setattr(redis_client, "zadd", unless_away)
    renewer = MessageRenewer(redis_client, interval_seconds=0.01)
    zadd(queue_keys.UNACKED_INDEX, {message.delivery_tag: 1}, xx=True)
    renewer.start()
    wait_until(lambda: (consumer.delivered_at(message) or 0) > 1)
    renewer.stop()
    assert away.is_set()
    zadd(queue_keys.UNACKED_INDEX, {message.delivery_tag: 1}, xx=True)
    time.sleep(0.05)
    assert consumer.delivered_at(message) == 1


def test_a_redis_that_was_away_for_long_is_found_as_soon_as_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kombu.utils.functional, "sleep", lambda _: None)
    app = make_celery(dead_redis_url())
    use_constant_retry(app)
    pauses: list[float] = []
    with app.connection_for_read() as connection, pytest.raises(OperationalError):
        connection.ensure_connection(lambda _, pause: pauses.append(pause), max_retries=20)
    assert pauses == [CONNECT_SECONDS] * 20
    app.close()


class TestRefusals:
    @pytest.fixture(autouse=True)
    def as_kombu_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        known = tuple(error for error in Transport.connection_errors if error is not ResponseError)
        monkeypatch.setattr(Transport, "connection_errors", known)

    @pytest.mark.parametrize("refusal", [OutOfMemoryError, ReadOnlyError, ResponseError])
    def test_a_redis_that_refuses_is_a_lost_connection_to_the_consumer(
        self, redis_url: str, refusal: type[Exception]
    ) -> None:
        assert not issubclass(refusal, Transport.connection_errors)
        reconnect_when_refused()
        app = make_celery(redis_url)
        # Of the consumer's own, made from the transport's: Celery asks the connection, kombu the channel.
        with app.connection_for_read() as connection:
            channel: Any = connection.channel()
            assert issubclass(refusal, connection.connection_errors)
            assert issubclass(refusal, channel.connection_errors)
        app.close()

    def test_saying_it_twice_changes_nothing(self) -> None:
        reconnect_when_refused()
        known = Transport.connection_errors
        reconnect_when_refused()
        assert Transport.connection_errors == known
        assert redis.ConnectionError in known
