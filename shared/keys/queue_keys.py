"""Names of the Celery queues, and the keys that kombu keeps for itself."""

from shared.contracts import WorkClass
from shared.keys import PREFIX

KOMBU_KEYS = {
    f"{PREFIX}unacked": "hash",
    f"{PREFIX}unacked_index": "zset",
    f"{PREFIX}_kombu.binding.celery": "set",
    f"{PREFIX}_kombu.binding_permanent.celery": "set",
    f"{PREFIX}_kombu.binding_deadlines": "zset",
}
"""kombu's own keys, and the Redis type of each."""
UNACKED_INDEX = f"{PREFIX}unacked_index"
"""kombu's: when each unacknowledged message was delivered."""


def queue_name(model: str, work_class: WorkClass) -> str:
    """The queue as Celery names it: without the prefix, which kombu adds itself."""
    return f"queue:{model}:{work_class}"


def work_class_of(name: str) -> WorkClass:
    """The class of work that a queue carries."""
    return WorkClass(name.rpartition(":")[2])


def queue(model: str, work_class: WorkClass) -> str:
    """The queue's key in Redis."""
    return PREFIX + queue_name(model, work_class)
