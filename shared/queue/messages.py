"""Wake-up messages: the Celery messages that name a shard, built and parsed as bytes.

The API never publishes through Celery: publishing blocks the event loop, and could not be atomic with the ledger. So
`MessageBuilder` builds the bytes that Celery would send, and a Lua script pushes them. A contract test compares both.
"""

import base64
import json
import re
import uuid
from dataclasses import dataclass
from typing import Any

from celery import Celery

from shared.contracts import WorkClass
from shared.queue.celery_app import TASK_NAME

_BLANK = "<blank>"
_TASK_ID = re.compile(r"([A-Za-z0-9_.:-]{1,200})/([0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class WakeUp:
    """Asks the workers of a pool to look at one shard; what a message says."""

    job_id: str
    shard: int
    work_class: WorkClass


def parse_message(message: bytes) -> tuple[str, int] | None:
    """The job id and the shard that a message names; None for a foreign message."""
    try:
        task_id = json.loads(message)["headers"]["id"]
        match = _TASK_ID.fullmatch(task_id)
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
    return (match[1], int(match[2])) if match else None


class MessageBuilder:
    """Builds wake-up messages, byte for byte what the pinned Celery and kombu would publish.

    Message format: Celery's task protocol 2 in kombu's virtual transport (a base64 JSON body, headers and properties),
    see https://docs.celeryq.dev/en/stable/internals/protocol.html.
    """

    def __init__(self, app: Celery) -> None:
        self._template: Any = app.amqp.as_task_v2("", TASK_NAME, args=(), kwargs={}, ignore_result=True)
        self._reply_to: str = app.thread_oid
        self._parts: dict[str, list[str]] = {}

    def build(self, queue_name: str, job_id: str, shard: int) -> bytes:
        """The message that wakes a worker of the queue for one shard."""
        if (parts := self._parts.get(queue_name)) is None:
            parts = self._parts[queue_name] = self._message(queue_name).split(_BLANK)
        body = base64.b64encode(json.dumps([[job_id, shard], {}, self._template.body[2]]).encode()).decode()
        task_id = f"{job_id}/{shard}"
        # kombu acknowledges by the delivery tag: it must be unique for every message, also for one that is sent again.
        blanks = (body, task_id, task_id, repr((job_id, shard)), task_id, str(uuid.uuid4()), "")
        return "".join([text for pair in zip(parts, blanks, strict=True) for text in pair]).encode()

    def _message(self, queue_name: str) -> str:
        """A template of the queue's messages, with blanks for values that differ; none of them needs JSON escaping."""
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
