"""The Celery task: passes the shard named by a message to the dispatcher. Contains no logic."""

from celery import Celery, Task

from shared.keys import queue_keys
from shared.queue.celery_app import TASK_NAME
from worker.dispatch.dispatcher import Dispatcher


def register(app: Celery, dispatcher: Dispatcher) -> None:
    """Register the task on the app, with this dispatcher."""

    def score_shard(self: "Task[..., None]", job_id: str, shard: int) -> None:
        delivery = self.request.delivery_info or {}
        dispatcher.run(job_id, shard, queue_keys.work_class_of(delivery.get("routing_key") or ""))

    app.task(name=TASK_NAME, bind=True, shared=False)(score_shard)
