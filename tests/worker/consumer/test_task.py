from collections.abc import Iterator
from typing import Any

import celery._state
import pytest
from celery import Celery

from shared.contracts import WorkClass
from shared.errors import StoreUnavailable
from shared.keys import queue_keys
from shared.ledger.job_ledger import JobLedger
from shared.ledger.job_record import JobStatus
from shared.ledger.worker_ledger import WorkerLedger
from shared.queue.celery_app import TASK_NAME, make_celery
from shared.store.client import connect
from tests.shared.support import MODEL, dead_redis_url, make_submission
from tests.worker.support import ScriptedEngine, make_dispatcher
from worker.consumer.task import register
from worker.engines.base import BACKGROUND


@pytest.fixture
def app(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    """An app that shares no task with the apps of other tests."""
    monkeypatch.setattr(celery._state, "_on_app_finalizers", set())
    app = make_celery(redis_url)
    yield app
    app.close()


def run_task(app: Celery, work_class: WorkClass) -> None:
    """Run the task for the first shard, as if its message came from this class's queue."""
    done = app.tasks[TASK_NAME].apply(args=("job-1", 0), routing_key=queue_keys.queue_name(MODEL, work_class))
    # Celery may believe that it runs inside a task, because another test ran a worker in this process.
    done.get(disable_sync_subtasks=False)


@pytest.mark.parametrize(("work_class", "priority"), [("interactive", 0), ("batch", BACKGROUND)])
async def test_the_task_scores_the_shard_with_the_priority_of_its_queue(
    app: Celery, ledger: JobLedger, redis_client: Any, work_class: str, priority: int
) -> None:
    engine = ScriptedEngine()
    register(app, make_dispatcher(WorkerLedger(redis_client, MODEL), engine))
    await ledger.submit(make_submission(work_class=WorkClass(work_class)))
    run_task(app, WorkClass(work_class))
    assert [batch.priority for batch in engine.batches] == [priority]
    assert await ledger.statuses(["job-1"]) == {"job-1": JobStatus.SUCCEEDED}


def test_without_redis_the_task_fails(app: Celery) -> None:
    with connect(dead_redis_url()) as client:
        register(app, make_dispatcher(WorkerLedger(client, MODEL), ScriptedEngine()))
        with pytest.raises(StoreUnavailable):
            run_task(app, WorkClass.BATCH)


def test_the_task_is_registered_on_one_app_only(app: Celery, redis_client: Any, redis_url: str) -> None:
    register(app, make_dispatcher(WorkerLedger(redis_client, MODEL), ScriptedEngine()))
    other = make_celery(redis_url)
    assert TASK_NAME in app.tasks
    assert TASK_NAME not in other.tasks
