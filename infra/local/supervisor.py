"""Keeps processes going: whoever ends by itself is started again, later each time it ends soon.

Owns what runs under which name, how to start it again and when. Refuses to wait: `tend` looks once and returns, so
that whoever calls it stays free to stop everything at any moment, also between an end and the next start.
"""

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

from shared.errors import RerankqError
from shared.processes import ChildProcess, describe_exit

FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 30.0
HEALTHY_SECONDS = 60.0
"""Whoever ran this long has recovered: its next end is a first one."""


class Supervisor:
    """The processes by name, in the order in which they were started."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._parts: dict[str, _Part] = {}

    def start(self, name: str, spawn: Callable[[], ChildProcess]) -> ChildProcess:
        """Start a process for the first time; `spawn` also starts it again. What it raises is the caller's."""
        child = spawn()
        self._parts[name] = _Part(name, spawn, child, started_at=self._clock())
        return child

    def child(self, name: str) -> ChildProcess:
        """The latest process of that name. Raises KeyError."""
        return self._parts[name].child

    @property
    def children(self) -> list[ChildProcess]:
        """Every process that is not known to have ended: those there are to watch and to stop."""
        return [part.child for part in self._parts.values() if part.again_at is None]

    def tend(self) -> list[str]:
        """Look after everyone once. Answers one sentence for each that has ended: how, and when it starts again."""
        now = self._clock()
        return [sentence for part in self._parts.values() if (sentence := part.tend(now))]


@dataclass(slots=True)
class _Part:
    """One process. `again_at` is None while it runs, or is taken to run."""

    name: str
    spawn: Callable[[], ChildProcess]
    child: ChildProcess
    started_at: float
    delay: float = FIRST_DELAY_SECONDS
    again_at: float | None = None

    def tend(self, now: float) -> str:
        if self.again_at is not None:
            return self._start(now) if now >= self.again_at else ""
        if (status := self.child.exit_status) is None:
            return ""
        if now - self.started_at >= HEALTHY_SECONDS:
            self.delay = FIRST_DELAY_SECONDS
        # What it had started itself must not live on beside its successor.
        self.child.kill()
        return self._put_off(now, describe_exit(status))

    def _start(self, now: float) -> str:
        try:
            self.child = self.spawn()
        except (OSError, subprocess.SubprocessError, RerankqError) as error:
            return self._put_off(now, f"could not be started ({error})")
        self.started_at, self.again_at = now, None
        return ""

    def _put_off(self, now: float, what: str) -> str:
        delay, self.delay = self.delay, min(self.delay * 2, LONGEST_DELAY_SECONDS)
        self.again_at = now + delay
        return f"{self.name} {what}; starting it again in {delay:g} s (its log: {self.child.log})"
