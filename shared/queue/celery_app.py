"""The one Celery configuration, shared by the API (which builds messages) and the worker (which consumes them)."""

from celery import Celery
from kombu import Queue

from shared.contracts import WorkClass
from shared.keys import PREFIX, queue_keys
from shared.store.client import require_certificates

TASK_NAME = "rerankq.score_shard"
VISIBILITY_TIMEOUT_SECONDS = 15
"""A message that is neither acknowledged nor renewed for this long is delivered again, which costs one claim."""


def make_celery(redis_url: str) -> Celery:
    """The Celery app for the Redis at `redis_url`. It has no result backend: the ledger stores results."""
    app = Celery("rerankq", broker=require_certificates(redis_url), set_as_current=False)
    app.conf.update(
        result_backend=None,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        task_acks_late=True,
        task_acks_on_failure_or_timeout=True,
        task_reject_on_worker_lost=False,
        task_create_missing_queues=False,
        worker_pool="threads",
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_enable_prefetch_count_reduction=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_soft_shutdown_timeout=0,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_disable_rate_limits=True,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "global_keyprefix": PREFIX,
            # One list for each queue: kombu otherwise polls four, for its priorities, which are not used.
            "priority_steps": [0],
            "visibility_timeout": VISIBILITY_TIMEOUT_SECONDS,
            # With kombu's defaults lost messages are restored only every 100 s.
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            # The restoring worker holds a lock; if it is killed, kombu's default would keep the lock for five minutes.
            "unacked_mutex_expire": 5,
            "polling_interval": 0.1,
            "health_check_interval": 5,
            "socket_timeout": 5,
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "retry_on_timeout": False,
        },
    )
    return app


def pool_queues(model: str) -> list[Queue]:
    """The two queues of a model's pool, interactive first."""
    return [Queue(queue_keys.queue_name(model, work_class)) for work_class in WorkClass]
