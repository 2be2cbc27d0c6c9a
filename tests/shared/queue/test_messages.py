import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from shared.contracts import WorkClass
from shared.keys import queue_keys
from shared.queue.celery_app import TASK_NAME, make_celery, pool_queues
from shared.queue.messages import MessageBuilder, parse_message
from tests.shared.support import MODEL

JOB = "job-0123456789abcdef0123456789abcdef"


@pytest.fixture
def app(redis_url: str) -> Iterator[Celery]:
    app = make_celery(redis_url)
    app.conf.task_queues = pool_queues(MODEL)
    yield app
    app.close()


@pytest.fixture
def task(app: Celery) -> Any:
    def score_shard(self: object, job_id: str, shard: int) -> None:
        raise AssertionError("the task is only published, never run")

    return app.task(name=TASK_NAME, bind=True, shared=False)(score_shard)


def without_delivery_tag(message: dict[str, Any]) -> dict[str, Any]:
    properties = {name: value for name, value in message["properties"].items() if name != "delivery_tag"}
    return message | {"properties": properties}


def published(client: Any, work_class: WorkClass) -> list[dict[str, Any]]:
    return [json.loads(item) for item in client.lrange(queue_keys.queue(MODEL, work_class), 0, -1)]


@pytest.mark.parametrize("work_class", WorkClass)
@pytest.mark.parametrize("shard", [0, 12])
def test_message_equals_the_one_that_celery_publishes(
    app: Celery, task: Any, redis_client: Any, work_class: WorkClass, shard: int
) -> None:
    queue_name = queue_keys.queue_name(MODEL, work_class)
    built = json.loads(MessageBuilder(app).build(queue_name, JOB, shard))

    task.apply_async(args=(JOB, shard), task_id=f"{JOB}/{shard}", queue=queue_name)

    (message,) = published(redis_client, work_class)
    assert base64.b64decode(message["body"]) == base64.b64decode(built["body"])
    assert without_delivery_tag(message) == without_delivery_tag(built)
    assert message.keys() == built.keys()
    assert message["properties"].keys() == built["properties"].keys()


def test_celery_publishes_to_the_same_list_as_submit(task: Any, redis_client: Any) -> None:
    task.apply_async(args=(JOB, 0), queue=queue_keys.queue_name(MODEL, WorkClass.BATCH))
    lists = list(redis_client.scan_iter(_type="list"))
    assert lists == [queue_keys.queue(MODEL, WorkClass.BATCH).encode()]


def test_every_key_of_celery_and_kombu_has_the_prefix(task: Any, redis_client: Any) -> None:
    task.apply_async(args=(JOB, 0), queue=queue_keys.queue_name(MODEL, WorkClass.BATCH))
    assert all(key.startswith(b"rerankq:") for key in redis_client.scan_iter())


def test_kombu_decodes_the_task_of_a_message(app: Any, redis_client: Any) -> None:
    queue_name = queue_keys.queue_name(MODEL, WorkClass.INTERACTIVE)
    redis_client.lpush(queue_keys.queue(MODEL, WorkClass.INTERACTIVE), MessageBuilder(app).build(queue_name, JOB, 3))
    with app.connection_for_read() as connection, connection.SimpleQueue(queue_name) as queue:
        message = queue.get(timeout=5)
        args, kwargs, _ = message.payload
        assert (args, kwargs) == ([JOB, 3], {})
        assert (message.headers["task"], message.headers["id"]) == (TASK_NAME, f"{JOB}/3")
        message.ack()


def test_every_message_has_a_unique_delivery_tag(app: Celery) -> None:
    builder = MessageBuilder(app)
    tags = {json.loads(builder.build("queue:m:batch", JOB, 0))["properties"]["delivery_tag"] for _ in range(100)}
    assert len(tags) == 100


def test_building_a_message_does_not_change_an_earlier_one(app: Celery) -> None:
    builder = MessageBuilder(app)
    first = builder.build("queue:m:batch", "job-1", 0)
    builder.build("queue:m:interactive", "job-2", 1)
    assert json.loads(first)["headers"]["id"] == "job-1/0"


def test_pool_has_an_interactive_queue_before_its_batch_queue() -> None:
    assert [queue.name for queue in pool_queues("m")] == ["queue:m:interactive", "queue:m:batch"]


def test_celery_acknowledges_late_and_stores_no_results(app: Any) -> None:
    assert app.conf.task_acks_late
    assert not app.conf.task_reject_on_worker_lost
    assert app.conf.task_ignore_result
    assert app.conf.result_backend is None
    assert app.conf.accept_content == ["json"]


def test_message_is_parsed_to_its_job_and_shard(app: Celery) -> None:
    assert parse_message(MessageBuilder(app).build(queue_keys.queue_name(MODEL, WorkClass.BATCH), JOB, 12)) == (JOB, 12)


@pytest.mark.parametrize("task_id", ["", "job-1", "job-1/", "/1", "job-1/-1", "job-1/x", "job 1/1", "job-\ud800/1", 7])
def test_task_id_that_names_no_shard_is_not_parsed(task_id: Any) -> None:
    assert parse_message(json.dumps({"headers": {"id": task_id}}).encode()) is None


@pytest.mark.parametrize("message", [b"", b"x", b"\xff", b"7", b"[]", b'{"headers": null}', b"[" * 100_000])
def test_foreign_message_is_not_parsed(message: bytes) -> None:
    assert parse_message(message) is None
