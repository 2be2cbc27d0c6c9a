"""Estimates this worker's throughput in estimated tokens per second, ignoring idle time.

A lightly loaded worker shows its load, not its capacity. Therefore time and tokens are weighted by the tokens in
progress: after a burst, single requests hardly lower the estimate. Older measurements decay exponentially.
"""

import math
import threading
import time
from collections.abc import Callable

DECAY_SECONDS = 60.0
"""Busy time after which a measurement's weight has fallen to about a third."""
MIN_BUSY_SECONDS = 1.0
"""Busy time before the first estimate."""


class ThroughputMeter:
    """The throughput of one worker. Safe to share between threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._updated_at = clock()
        self._shards = 0
        self._tokens = 0
        # Since the last estimate: busy time, busy time weighted by tokens in progress, and tokens scored.
        self._busy = 0.0
        self._token_seconds = 0.0
        self._scored = 0
        # Average number of tokens in progress before the last estimate.
        self._weight = 0.0
        # Weighted and decayed sums of everything before.
        self._sum_scored = 0.0
        self._sum_token_seconds = 0.0
        self._total_busy = 0.0

    @property
    def held(self) -> int:
        """The number of shards in progress."""
        return self._shards

    def shard_started(self, tokens: int) -> None:
        """Count a shard of this many estimated tokens as in progress."""
        with self._lock:
            self._advance_clock()
            self._shards += 1
            self._tokens += tokens

    def shard_ended(self, tokens: int, *, scored: bool) -> None:
        """Stop counting a shard; `scored` when it was completed."""
        with self._lock:
            self._advance_clock()
            self._shards -= 1
            self._tokens -= tokens
            if scored:
                self._scored += tokens

    def tokens_per_second(self) -> float | None:
        """The estimate; None until enough was measured."""
        with self._lock:
            self._advance_clock()
            if self._busy:
                self._weight = self._token_seconds / self._busy
            # Without busy time since the last estimate, the scored tokens were in progress before it.
            decay = math.exp(-self._busy / DECAY_SECONDS)
            self._sum_scored = self._sum_scored * decay + self._scored * self._weight
            self._sum_token_seconds = self._sum_token_seconds * decay + self._token_seconds
            self._total_busy += self._busy
            self._busy, self._token_seconds, self._scored = 0.0, 0.0, 0
            if self._total_busy < MIN_BUSY_SECONDS or not self._sum_scored:
                return None
            return self._sum_scored / self._sum_token_seconds

    def _advance_clock(self) -> None:
        now = self._clock()
        if self._shards:
            self._busy += now - self._updated_at
            self._token_seconds += (now - self._updated_at) * self._tokens
        self._updated_at = now
