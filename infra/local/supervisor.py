"""Restarts processes that end, with growing delays for processes that end soon after their start.

Owns the processes by name, how and when to restart each. Never blocks: `restart_ended` checks once and returns, so that
the caller can stop everything at any moment, also while a restart is pending.
"""

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

from shared.errors import RerankqError
from shared.processes import ChildProcess, describe_exit

FIRST_DELAY_SECONDS = 0.5
MAX_DELAY_SECONDS = 30.0
HEALTHY_SECONDS = 60.0
"""A process that ran this long counts as recovered: its next restart has the shortest delay again."""


class Supervisor:
    """Processes by name, in order of their first start."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._processes: dict[str, _Process] = {}

    def start(self, name: str, spawn: Callable[[], ChildProcess]) -> ChildProcess:
        """Start a process; `spawn` is called again for restarts. Raises what `spawn` raises."""
        child = spawn()
        self._processes[name] = _Process(name, spawn, child, started_at=self._clock())
        return child

    def child(self, name: str) -> ChildProcess:
        """The latest process of that name. Raises KeyError."""
        return self._processes[name].child

    @property
    def children(self) -> list[ChildProcess]:
        """All processes, except those that wait for a restart."""
        return [process.child for process in self._processes.values() if process.restart_at is None]

    def restart_ended(self) -> list[str]:
        """Check every process once. Returns a sentence for each that has ended: how, and when it is restarted."""
        now = self._clock()
        return [sentence for process in self._processes.values() if (sentence := process.restart_ended(now))]


@dataclass(slots=True)
class _Process:
    """One process. `restart_at` is None while it runs."""

    name: str
    spawn: Callable[[], ChildProcess]
    child: ChildProcess
    started_at: float
    delay: float = FIRST_DELAY_SECONDS
    restart_at: float | None = None

    def restart_ended(self, now: float) -> str:
        if self.restart_at is not None:
            return self._start(now) if now >= self.restart_at else ""
        if (status := self.child.exit_status) is None:
            return ""
        if now - self.started_at >= HEALTHY_SECONDS:
            self.delay = FIRST_DELAY_SECONDS
        # Its own children must not run beside the restarted process.
        self.child.kill()
        return self._schedule_restart(now, describe_exit(status))

    def _start(self, now: float) -> str:
        try:
            self.child = self.spawn()
        except (OSError, subprocess.SubprocessError, RerankqError) as error:
            return self._schedule_restart(now, f"could not be started ({error})")
        self.started_at, self.restart_at = now, None
        return ""

    def _schedule_restart(self, now: float, what: str) -> str:
        delay, self.delay = self.delay, min(self.delay * 2, MAX_DELAY_SECONDS)
        self.restart_at = now + delay
        return f"{self.name} {what}; restarting in {delay:g} s (log: {self.child.log})"
