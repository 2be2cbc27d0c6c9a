"""Measures the processes that live through the whole run, and Redis."""

import time
from collections.abc import Mapping

import psutil
import redis

from tests.soak.regression import Series

SAMPLE_SECONDS = 5.0
_MEBI = 1024 * 1024


class Watch:
    """Series of what was sampled; times are seconds since its creation."""

    def __init__(self, processes: Mapping[str, int], redis_port: int) -> None:
        """`processes` are the pids by name."""
        self.memory = {name: Series(name, "MiB") for name in processes}
        self.files = {name: Series(name, "open files") for name in processes}
        self.keys = Series("Redis keys", "keys")
        self._processes = {name: psutil.Process(pid) for name, pid in processes.items()}
        self._client = redis.Redis(port=redis_port, socket_timeout=5)
        self._started_at = time.monotonic()

    def sample(self) -> None:
        """Take one sample of everything."""
        now = time.monotonic() - self._started_at
        for name, process in self._processes.items():
            self.memory[name].add(now, process.memory_info().rss / _MEBI)
            self.files[name].add(now, process.num_fds())
        self.keys.add(now, int(self._client.dbsize()))

    def close(self) -> None:
        self._client.close()
