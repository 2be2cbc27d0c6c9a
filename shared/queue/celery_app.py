"""The one Celery configuration, and the doorbell's envelope.

The worker registers its task on this app. The API never publishes through it: publishing blocks the event loop and
could not be one step with the ledger, so `Envelopes` builds the bytes that Celery would have sent and the submit
script pushes them. A contract test holds the two equal.
"""

import base64
import json
import re
import uuid
from typing import Any

from celery import Celery
from kombu import Queue

from shared import keys
from shared.contracts import WorkClass
from shared.store.client import checking_certificates

TASK_NAME = "rerankq.score_shard"
VISIBILITY_TIMEOUT_SECONDS = 15
"""A message that was neither acknowledged nor renewed for this long is delivered again: it costs a claim."""

_BLANK = "<blank>"
_TASK_ID = re.compile(r"([A-Za-z0-9_.:-]{1,200})/([0-9]{1,9})")


def make_celery(redis_url: str) -> Celery:
    """The Celery app for the Redis at `redis_url`. Results are off: the ledger holds them."""
    app = Celery("rerankq", broker=checking_certificates(redis_url), set_as_current=False)
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
            "global_keyprefix": keys.PREFIX,
            # One list a queue: without it the worker asks Redis for four, for kombu's priorities, which are not used.
            "priority_steps": [0],
            "visibility_timeout": VISIBILITY_TIMEOUT_SECONDS,
            # kombu's own defaults look for lost messages every 100 s only.
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            # Whoever restores holds a lock; one that is killed meanwhile must not keep it for kombu's five minutes.
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
    """The two queues of a model's pool, the interactive one first."""
    return [Queue(keys.queue_name(model, work_class)) for work_class in WorkClass]


def read_envelope(message: bytes) -> tuple[str, int] | None:
    """The job and the shard that a message of `Envelopes` names; None for anything else."""
    try:
        task_id = json.loads(message)["headers"]["id"]
        match = _TASK_ID.fullmatch(task_id)
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
    return (match[1], int(match[2])) if match else None


class Envelopes:
    """Builds the queue's messages, byte for byte what the pinned Celery and kombu would publish.

    Message format: Celery's task protocol 2 inside kombu's virtual transport (a base64 JSON body, headers and
    properties), as https://docs.celeryq.dev/en/stable/internals/protocol.html has it.
    """

    def __init__(self, app: Celery) -> None:
        self._template: Any = app.amqp.as_task_v2("", TASK_NAME, args=(), kwargs={}, ignore_result=True)
        self._reply_to: str = app.thread_oid
        self._parts: dict[str, list[str]] = {}

    def build(self, queue_name: str, job_id: str, shard: int) -> bytes:
        """The message that tells a worker of the queue to look at one shard."""
        if (parts := self._parts.get(queue_name)) is None:
            parts = self._parts[queue_name] = self._message(queue_name).split(_BLANK)
        body = base64.b64encode(json.dumps([[job_id, shard], {}, self._template.body[2]]).encode()).decode()
        task_id = f"{job_id}/{shard}"
        # kombu acks by the tag: it must be new for every message, also for a shard that is sent again.
        blanks = (body, task_id, task_id, repr((job_id, shard)), task_id, str(uuid.uuid4()), "")
        return "".join([text for pair in zip(parts, blanks, strict=True) for text in pair]).encode()

    def _message(self, queue_name: str) -> str:
        """A message of the queue, blank where messages differ: none of that needs escaping in JSON."""
        headers = dict(self._template.headers)
        headers.update(id=_BLANK, root_id=_BLANK, argsrepr=_BLANK)
        properties = {
            "correlation_id": _BLANK,
            "reply_to": self._reply_to,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": queue_name},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": _BLANK,
        }
        message = {
            "body": _BLANK,
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": headers,
            "properties": properties,
        }
        return json.dumps(message)
