"""Which queue the worker takes from next: interactive work first, batch work never on the reserved slots.

Owns the count of batch shards in this worker's hands, and the order in which kombu asks the pool's queues. Refuses to
hold interactive work back, and to interrupt batch work that has begun: a reserved slot is one kept free.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Lock

from shared.contracts import WorkClass

TAKEN_SECONDS = 1.0
"""How long a message that has left its queue counts although no thread has begun on it. It begins within
milliseconds; what has not begun by then was refused or given back, and must not hold a slot for ever."""


class Slots:
    """Counts batch shards against what `reserved` leaves of `concurrency`. Safe to use from every thread."""

    def __init__(self, concurrency: int, reserved: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = concurrency - reserved
        self._clock = clock
        self._lock = Lock()
        self._running = 0
        self._taken: deque[float] = deque()

    @property
    def batch_in_flight(self) -> int:
        """Batch shards that run, and those whose message was taken just now."""
        with self._lock:
            while self._taken and self._clock() - self._taken[0] >= TAKEN_SECONDS:
                self._taken.popleft()
            return self._running + len(self._taken)

    def batch_may_come(self) -> bool:
        """Whether another batch shard would leave the reserved slots free."""
        return self.batch_in_flight < self._limit

    def take_batch(self) -> None:
        """A batch message has left its queue. Without counting it here, the next ones would be taken before its
        thread gets to say that it runs."""
        with self._lock:
            self._taken.append(self._clock())

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Around running one batch shard."""
        with self._lock:
            if self._taken:
                self._taken.popleft()
            self._running += 1
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1


def queue_order(slots: Slots) -> type:
    """What kombu's Redis transport takes as `queue_order_strategy`, bound to these slots.

    A class, made anew for each worker: kombu calls it without arguments, once for every channel.
    """

    class InteractiveFirst:
        """After kombu.utils.scheduling.round_robin_cycle, which has the same four methods."""

        def __init__(self) -> None:
            self._names: list[str] = []

        def update(self, names: Iterable[str]) -> None:
            """The queues that are consumed from now on, in any order."""
            self._names = sorted(names, key=_carries_batch)

        def consume(self, count: int) -> list[str]:
            """The queues to ask now; Redis takes from the first one that has something."""
            names = (
                self._names if slots.batch_may_come() else [name for name in self._names if not _carries_batch(name)]
            )
            return names[:count]

        def rotate(self, name: str) -> str:
            """A message came from this queue. Nobody's turn changes."""
            if _carries_batch(name):
                slots.take_batch()
            return name

    return InteractiveFirst


def _carries_batch(name: str) -> bool:
    """By the end of the queue's name: kombu's prefix, which it takes off the names that Redis answers, is no matter."""
    return name.rpartition(":")[2] == WorkClass.BATCH
