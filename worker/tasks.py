"""The Celery task: what a message says, passed on to the executor. No logic lives here."""

from celery import Celery, Task

from shared.celery_app import TASK_NAME
from shared.contracts import WorkClass
from worker.executor import Executor


def register(app: Celery, executor: Executor) -> None:
    """Make the app run shards on this executor."""

    def score_shard(self: "Task[..., None]", job_id: str, shard: int) -> None:
        queue = str(self.request.delivery_info["routing_key"])
        executor.run(job_id, shard, WorkClass(queue.rpartition(":")[2]))

    app.task(name=TASK_NAME, bind=True)(score_shard)
