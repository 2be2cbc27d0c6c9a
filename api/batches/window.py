"""Limits how many lines of one batch are jobs at once: enough to keep its pools busy, and few enough to leave room.

Later jobs of the same owner wait behind the lines that are queued already, so a window holds half a second of work.
Everything in a window is held in memory and in Redis.
"""

import time
from collections import Counter
from collections.abc import Callable

from api.pool_monitor import PoolMonitor

MAX_LINES = 2048
MAX_BYTES = 16 << 20
MAX_BYTES_IN_ALL = 48 << 20
"""The limit of all windows of a process together. A batch may always have one line more."""
WINDOW_SECONDS = 0.5
SHARDS_PER_WORKER = 4
"""The least size of a window, in full shards for each worker: what workers claim ahead, and as much again."""
_RATE_SECONDS = 0.25
"""How often the rate is measured."""


class SharedBytes:
    """The bytes of the lines in all windows of a process."""

    def __init__(self) -> None:
        self.used = 0


class Window:
    """The lines of one batch that are jobs. `shard_tokens` is the size of a full shard in estimated tokens.

    A window grows with the rate at which its own lines end: from a small one to WINDOW_SECONDS of work, within seconds.
    """

    def __init__(
        self, pools: PoolMonitor, shard_tokens: int, shared: SharedBytes, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._pools = pools
        self._shard_tokens = shard_tokens
        self._shared = shared
        self._lines = 0
        self._bytes = 0
        self._tokens: Counter[str] = Counter()
        self._clock = clock
        self._measured_at = clock()
        self._ended: Counter[str] = Counter()
        self._rates: dict[str, float] = {}
        """Estimated tokens per second of each model, of lines that ended."""

    def has_room(self, model: str | None, size: int) -> bool:
        """Whether a line of `size` bytes fits; a single line always does. `model` None: it needs no worker."""
        if not self._lines:
            return True
        if self._lines >= MAX_LINES or self._bytes + size > MAX_BYTES:
            return False
        if self._shared.used + size > MAX_BYTES_IN_ALL:
            return False
        return model is None or self._tokens[model] < self._capacity(model)

    def add(self, model: str | None, size: int, tokens: int) -> None:
        """Count a line that becomes a job."""
        self._change(model, 1, size, tokens)

    def remove(self, model: str | None, size: int, tokens: int) -> None:
        """Count the end of a line that was added with the same arguments."""
        self._change(model, -1, -size, -tokens)
        if model is not None:
            self._ended[model] += tokens
        if self._clock() - self._measured_at >= _RATE_SECONDS:
            self._measure()

    def is_warm(self, model: str | None) -> bool:
        """Whether the model has a ready worker."""
        return model is None or self._pools.pool(model).signals.ready > 0

    def _change(self, model: str | None, lines: int, size: int, tokens: int) -> None:
        self._lines += lines
        self._bytes += size
        self._shared.used += size
        if model is not None:
            self._tokens[model] += tokens

    def _measure(self) -> None:
        now = self._clock()
        for model, tokens in self._ended.items():
            rate = tokens / (now - self._measured_at)
            self._rates[model] = (self._rates.get(model, rate) + rate) / 2
        self._ended = Counter(dict.fromkeys(self._ended, 0))
        self._measured_at = now

    def _capacity(self, model: str) -> float:
        """The estimated tokens of a model that may be queued."""
        signals = self._pools.pool(model).signals
        workers = max(1, signals.ready + signals.starting)
        least = float(SHARDS_PER_WORKER * self._shard_tokens * workers)
        return max(least, self._rates.get(model, 0.0) * WINDOW_SECONDS)
