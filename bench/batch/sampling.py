"""Samples the memory of the API, of the batch runner and of Redis, and reads the processor time of Redis.

The runner is a child process of the API; its memory is counted apart from the API's.
"""

import re
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil
import redis

from bench.store_costs import spent

INTERVAL_SECONDS = 0.5
_RUNNER_ARGUMENT = "batches"
_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


@dataclass(slots=True)
class Peaks:
    """The largest values in bytes. `redis` is what Redis counts as used; the others are resident memory."""

    api: int = 0
    runner: int = 0
    redis: int = 0

    def merge(self, other: "Peaks") -> None:
        """Keep the larger value of each."""
        self.api = max(self.api, other.api)
        self.runner = max(self.runner, other.runner)
        self.redis = max(self.redis, other.redis)


class Sampler:
    """Samples on a thread while the context is open. `peaks` has the peaks that the kernel and Redis recorded."""

    def __init__(self, api_pid: int, redis_url: str) -> None:
        self.peaks = Peaks()
        self._api_pid = api_pid
        self._redis_url = redis_url
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(10)

    def _run(self) -> None:
        with redis.Redis.from_url(self._redis_url, socket_timeout=5) as client:
            while not self._stopped.wait(INTERVAL_SECONDS):
                # A process may end at any moment, Redis at the end of the case.
                with suppress(psutil.Error, OSError, redis.RedisError):
                    self._sample(client)

    def _sample(self, client: redis.Redis) -> None:
        api = psutil.Process(self._api_pid)
        memory: Any = client.info("memory")
        mine, runners = [api], list[psutil.Process]()
        for child in api.children():
            if (arguments := child.cmdline()) == api.cmdline():
                # A fork of the API that is about to become another program.
                continue
            family = [child, *child.children(recursive=True)]
            (runners if _RUNNER_ARGUMENT in arguments else mine).extend(family)
        self.peaks.merge(Peaks(_peak_memory(mine), _peak_memory(runners), int(memory["used_memory_peak"])))


def _peak_memory(processes: list[psutil.Process]) -> int:
    return sum(peak_memory(process.pid) for process in processes)


def peak_memory(pid: int) -> int:
    """The largest resident memory of a process, in bytes, as the kernel records it. Raises OSError."""
    match = _PEAK.search(Path(f"/proc/{pid}/status").read_text())
    return int(match[1]) * 1024 if match else 0


def restart_peak(pid: int) -> int:
    """Make `peak_memory` begin again at the present memory, and return that, in bytes. Raises OSError."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return peak_memory(pid)


@dataclass(frozen=True, slots=True)
class RedisTime:
    """Processor time of Redis in microseconds: of the process, of its main thread, and within scripts.

    The main thread's is 0 where the server does not report it.
    """

    process: float
    main_thread: float
    scripts: float

    @classmethod
    def read(cls, url: str) -> "RedisTime":
        """The time since the server started."""
        with redis.Redis.from_url(url, socket_timeout=5) as client:
            cpu: Any = client.info("cpu")
            main = sum(cpu.get(f"used_cpu_{kind}_main_thread", 0.0) for kind in ("user", "sys"))
            return cls((cpu["used_cpu_user"] + cpu["used_cpu_sys"]) * 1e6, main * 1e6, spent(client))

    def since(self, earlier: "RedisTime", count: int) -> "RedisTime":
        """The time since an earlier reading, divided by `count`."""
        return RedisTime(
            (self.process - earlier.process) / count,
            (self.main_thread - earlier.main_thread) / count,
            (self.scripts - earlier.scripts) / count,
        )
