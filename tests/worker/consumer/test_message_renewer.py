import threading
import time
from collections.abc import Iterator
from typing import Any

import celery.worker.state
import pytest
import redis
from kombu import Connection

from shared.contracts import WorkClass
from shared.keys import queue_keys
from shared.queue.celery_app import make_celery, pool_queues
from shared.queue.messages import MessageBuilder
from shared.store.client import connect
from tests.shared.support import MODEL, dead_redis_url
from tests.worker.support import wait_until
from worker.consumer.message_renewer import MessageRenewer

QUEUE = queue_keys.queue_name(MODEL, WorkClass.INTERACTIVE)


class Request:
    """The part of Celery's request that the renewer reads."""

    def __init__(self, message: Any) -> None:
        self.message = message
        self.delivery_info = {"exchange": "", "routing_key": QUEUE, "priority": 0, "redelivered": False}


class Consumer:
    """Receives messages through kombu without acknowledging them, as the worker's consumer does."""

    def __init__(self, connection: Connection, client: Any, messages: MessageBuilder) -> None:
        self._channel: Any = connection.channel()
        self._client = client
        self._messages = messages

    def receive(self, job_id: str = "job-1") -> Any:
        self._client.lpush(queue_keys.queue(MODEL, WorkClass.INTERACTIVE), self._messages.build(QUEUE, job_id, 0))
        return self._channel.basic_get(QUEUE)

    def delivered_at(self, message: Any) -> float | None:
        score = self._client.zscore(queue_keys.UNACKED_INDEX, message.delivery_tag)
        return None if score is None else float(score)

    def make_old(self, message: Any) -> None:
        """Make the message look as if it was received long ago."""
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
    """Strong references to the reserved requests, because Celery's set is weak. Removed from it afterwards."""
    requests: set[Any] = set()
    yield requests
    for request in requests:
        celery.worker.state.reserved_requests.discard(request)


def reserve(reserved: set[Any], *messages: Any) -> None:
    requests: Any = celery.worker.state.reserved_requests
    for message in messages:
        request = Request(message)
        reserved.add(request)
        requests.add(request)


def test_all_unacknowledged_messages_of_this_worker_are_renewed(
    consumer: Consumer, redis_client: redis.Redis, reserved: set[Any]
) -> None:
    messages = [consumer.receive(f"job-{number}") for number in range(3)]
    reserve(reserved, *messages)
    for message in messages:
        consumer.make_old(message)
    MessageRenewer(redis_client).renew()
    for message in messages:
        assert consumer.delivered_at(message) == pytest.approx(time.time(), abs=5)


def test_an_acknowledged_message_is_not_added_again(consumer: Consumer, redis_client: Any, reserved: set[Any]) -> None:
    message, other = consumer.receive("job-1"), consumer.receive("job-2")
    reserve(reserved, message, other)
    message.ack()
    MessageRenewer(redis_client).renew()
    assert consumer.delivered_at(message) is None
    assert redis_client.zcard(queue_keys.UNACKED_INDEX) == 1


def test_messages_of_other_workers_are_not_renewed(consumer: Consumer, redis_client: redis.Redis) -> None:
    message = consumer.receive()
    consumer.make_old(message)
    MessageRenewer(redis_client).renew()
    assert consumer.delivered_at(message) == 1


def test_redis_is_not_called_without_messages() -> None:
    with connect(dead_redis_url()) as client:
        MessageRenewer(client).renew()


def test_renewal_survives_a_connection_error_and_ends_with_stop(
    consumer: Consumer, redis_client: Any, reserved: set[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    message = consumer.receive()
    reserve(reserved, message)
    failed_once = threading.Event()
    zadd = redis_client.zadd

    def fail_once(*args: Any, **options: Any) -> Any:
        if not failed_once.is_set():
            failed_once.set()
            raise redis.ConnectionError("connection lost")
        return zadd(*args, **options)

    monkeypatch.setattr(redis_client, "zadd", fail_once)
    renewer = MessageRenewer(redis_client, interval_seconds=0.01)
    zadd(queue_keys.UNACKED_INDEX, {message.delivery_tag: 1}, xx=True)
    renewer.start()
    wait_until(lambda: (consumer.delivered_at(message) or 0) > 1)
    renewer.stop()
    assert failed_once.is_set()
    zadd(queue_keys.UNACKED_INDEX, {message.delivery_tag: 1}, xx=True)
    time.sleep(0.05)
    assert consumer.delivered_at(message) == 1
