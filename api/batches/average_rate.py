"""The average rate of a count over its last seconds."""

import time
from collections import deque

RATE_SECONDS = 30.0
"""The rate is averaged over this time."""


class AverageRate:
    """How fast a count grows, which begins at `count`."""

    def __init__(self, count: int) -> None:
        self._samples: deque[tuple[float, int]] = deque([(time.monotonic(), count)])

    def update(self, count: int) -> float:
        """The rate per second, with the count now."""
        now = time.monotonic()
        self._samples.append((now, count))
        while self._samples[0][0] < now - RATE_SECONDS and len(self._samples) > 2:
            self._samples.popleft()
        started, before = self._samples[0]
        return (count - before) / (now - started) if now > started else 0.0
