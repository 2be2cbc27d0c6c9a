"""How fast this worker is: estimated tokens a second, while it has something in hand.

A worker with little to do shows how little that was, not how fast it is. So time and tokens weigh by how much was in
hand: after a burst, single requests hardly lower what the burst has shown. What is long past fades.
"""

import math
import threading
import time
from collections.abc import Callable

MEMORY_SECONDS = 60.0
"""Of busy time, after which what was seen counts for about a third."""
AT_LEAST_SECONDS = 1.0
"""Of busy time, before which nothing is said."""


class ThroughputMeter:
    """One worker's. Safe to share between threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._at = clock()
        self._shards = 0
        self._tokens = 0
        # Since it was last looked at: time with something in hand, that time weighed, and the tokens scored.
        self._busy = 0.0
        self._token_seconds = 0.0
        self._scored = 0
        # How many tokens were in hand on average then, when it was last looked at.
        self._weight = 0.0
        # Of all before, weighed and faded.
        self._sum_scored = 0.0
        self._sum_token_seconds = 0.0
        self._seen = 0.0

    @property
    def held(self) -> int:
        """How many shards are in hand."""
        return self._shards

    def take(self, tokens: int) -> None:
        """A shard of so many estimated tokens is in hand from now on."""
        with self._lock:
            self._pass_time()
            self._shards += 1
            self._tokens += tokens

    def drop(self, tokens: int, *, scored: bool) -> None:
        """It is not any more; `scored` when it was done."""
        with self._lock:
            self._pass_time()
            self._shards -= 1
            self._tokens -= tokens
            if scored:
                self._scored += tokens

    def tokens_per_second(self) -> float | None:
        """What was seen until now; None when that is not enough."""
        with self._lock:
            self._pass_time()
            if self._busy:
                self._weight = self._token_seconds / self._busy
            # Without time since the last look, what was scored was in hand before it.
            fade = math.exp(-self._busy / MEMORY_SECONDS)
            self._sum_scored = self._sum_scored * fade + self._scored * self._weight
            self._sum_token_seconds = self._sum_token_seconds * fade + self._token_seconds
            self._seen += self._busy
            self._busy, self._token_seconds, self._scored = 0.0, 0.0, 0
            if self._seen < AT_LEAST_SECONDS or not self._sum_scored:
                return None
            return self._sum_scored / self._sum_token_seconds

    def _pass_time(self) -> None:
        now = self._clock()
        if self._shards:
            self._busy += now - self._at
            self._token_seconds += (now - self._at) * self._tokens
        self._at = now
