"""The order in which Celery reads the pool's queues: interactive first.

Does not limit batch work; the dispatcher does.
"""

from collections.abc import Iterable

from shared.contracts import WorkClass


class InteractiveFirst:
    """A `queue_order_strategy` for kombu's Redis transport; kombu creates one for every channel.

    Has the methods of kombu.utils.scheduling.round_robin_cycle.
    """

    def __init__(self) -> None:
        self._names: list[str] = []

    def update(self, names: Iterable[str]) -> None:
        """Set the queues to consume, in any order."""
        # Compare the end of the name: some names have kombu's prefix and some do not.
        self._names = sorted(names, key=lambda name: name.rpartition(":")[2] == WorkClass.BATCH)

    def consume(self, count: int) -> list[str]:
        """The queues to read; Redis pops from the first one that has a message."""
        return self._names[:count]

    def rotate(self, name: str) -> str:
        """Called after a message from this queue; the order does not change."""
        return name
