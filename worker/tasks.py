"""The Celery task: what a message says, passed on to the executor. No logic lives here."""

from celery import Celery, Task

from shared import keys
from shared.celery_app import TASK_NAME
from worker.executor import Executor


def register(app: Celery, executor: Executor) -> None:
    """Make the app run shards on this executor."""

    def score_shard(self: "Task[..., None]", job_id: str, shard: int) -> None:
        delivery = self.request.delivery_info or {}
        executor.run(job_id, shard, keys.work_class_of(delivery.get("routing_key") or ""))

    app.task(name=TASK_NAME, bind=True, shared=False)(score_shard)
