"""A time limit for the whole run, enforced by a timer signal. For the main thread only."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager


class DeadlineReached(BaseException):
    """The time is over. Not an Exception, so that nothing on the way handles it as a failure of its own."""


class Deadline:
    """`seconds` from now."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left; negative after the end."""
        return self._end - time.monotonic()

    @contextmanager
    def enforced(self) -> Iterator[None]:
        """Raise DeadlineReached inside the block when the time is over."""
        previous = signal.signal(signal.SIGALRM, _raise)
        signal.setitimer(signal.ITIMER_REAL, max(self.left(), 0.001))
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)


def _raise(*_: object) -> None:
    raise DeadlineReached
