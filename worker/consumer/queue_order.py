"""In which order Celery asks the pool's queues: interactive work first.

Refuses to count: how much batch work a worker takes is the dispatcher's business.
"""

from collections.abc import Iterable

from shared.contracts import WorkClass


class InteractiveFirst:
    """What kombu's Redis transport takes as `queue_order_strategy`; kombu makes one for every channel.

    After kombu.utils.scheduling.round_robin_cycle, which has the same four methods.
    """

    def __init__(self) -> None:
        self._names: list[str] = []

    def update(self, names: Iterable[str]) -> None:
        """The queues that are consumed from now on, in any order."""
        # By the end of the name: kombu's prefix, which it takes off the names that Redis answers, is no matter.
        self._names = sorted(names, key=lambda name: name.rpartition(":")[2] == WorkClass.BATCH)

    def consume(self, count: int) -> list[str]:
        """The queues to ask now; Redis takes from the first one that has something."""
        return self._names[:count]

    def rotate(self, name: str) -> str:
        """A message came from this queue. Nobody's turn changes."""
        return name
