"""Lets shards run side by side, or one of them without any company.

A shard that was in work when a worker died may be the one that killed it. It is tried again alone, so that a second
death is charged to nobody else.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Gate:
    """Many may pass together, or one alone. One that waits to be alone lets nobody else pass before it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._together = 0
        self._waiting_alone = 0
        self._alone = False

    @contextmanager
    def passing(self, *, alone: bool) -> Iterator[None]:
        with self._alone_inside() if alone else self._together_inside():
            yield

    @contextmanager
    def _together_inside(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._alone and not self._waiting_alone)
            self._together += 1
        try:
            yield
        finally:
            with self._changed:
                self._together -= 1
                self._changed.notify_all()

    @contextmanager
    def _alone_inside(self) -> Iterator[None]:
        with self._changed:
            self._waiting_alone += 1
            self._changed.wait_for(lambda: not self._alone and not self._together)
            self._waiting_alone -= 1
            self._alone = True
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()
