"""The Celery task: what a message says, passed on to the executor. No logic lives here."""

from contextlib import nullcontext

from celery import Celery, Task

from shared import keys
from shared.celery_app import TASK_NAME
from shared.contracts import WorkClass
from worker.executor import Executor
from worker.slots import Slots


def register(app: Celery, executor: Executor, slots: Slots) -> None:
    """Make the app run shards on this executor, batch ones on the slots that they may take."""

    def score_shard(self: "Task[..., None]", job_id: str, shard: int) -> None:
        delivery = self.request.delivery_info or {}
        work_class = keys.work_class_of(delivery.get("routing_key") or "")
        with slots.batch() if work_class is WorkClass.BATCH else nullcontext():
            executor.run(job_id, shard, work_class)

    app.task(name=TASK_NAME, bind=True, shared=False)(score_shard)
