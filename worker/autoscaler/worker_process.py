"""One worker process of this machine, as whoever started it sees it: how it runs, how it ends, what it last said.

Owns the process and the pipe that it writes to; refuses to know why it runs.
"""

import fcntl
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from shared.pools.heartbeats import worker_name

_KEPT_LINES = 15
_READ_BYTES = 1 << 16
_PIPE_BYTES = 1 << 20
"""What a worker can write while nobody reads: the launcher may be waiting for Redis."""


class ProcessHandle(Protocol):
    """What runs. `pid` is None until it does."""

    @property
    def pid(self) -> int | None: ...

    def poll(self) -> int | None:
        """The exit status as subprocess has it; None while it runs, or is yet to run."""


@dataclass(slots=True)
class WorkerProcess:
    """A worker of one model, from the moment in which it is wanted until it has ended.

    `devices` are its own. `gave_up` says why its start was broken off. `heard_at`: its last heartbeat was then.
    """

    model: str
    process: ProcessHandle
    output: "WorkerOutput"
    devices: tuple[str, ...] = ()
    started_at: float = field(default_factory=time.monotonic)
    heard_at: float = field(default_factory=time.monotonic)
    was_ready: bool = False
    stopping_since: float | None = None
    gave_up: str = ""
    _told: bool = False

    @property
    def name(self) -> str | None:
        """What it calls itself in its heartbeats; None while it has no process."""
        return None if self.process.pid is None else worker_name(self.process.pid)

    def request_stop(self) -> None:
        """Have it finish what it has, and go. Safe to call twice: a worker takes a second signal for an order."""
        if self.stopping_since is None:
            self.stopping_since = time.monotonic()
        if not self._told and self.process.pid is not None:
            self._told = True
            self._signal(os.kill, signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, with everything it started."""
        if self.stopping_since is None:
            self.stopping_since = time.monotonic()
        self._signal(os.killpg, signal.SIGKILL)

    def pass_on_output(self) -> None:
        """Print what it has written since."""
        self.output.pass_on(f"worker[{self.process.pid}]")

    def _signal(self, send: Callable[[int, int], None], number: int) -> None:
        # As long as it has not been waited for, the pid is its own.
        if self.process.pid is not None and self.process.poll() is None:
            with suppress(ProcessLookupError):
                send(self.process.pid, number)


class WorkerOutput:
    """A pipe that one process writes to: passed on line by line, the last lines kept."""

    def __init__(self) -> None:
        """Raises OSError."""
        self.read_end, self.write_end = os.pipe()
        os.set_blocking(self.read_end, False)
        with suppress(OSError):
            fcntl.fcntl(self.write_end, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._rest = b""

    def hand_over(self) -> None:
        """The process has its end; ours is closed."""
        if self.write_end >= 0:
            os.close(self.write_end)
            self.write_end = -1

    def pass_on(self, prefix: str) -> None:
        """Print what came since, never waiting for more."""
        with suppress(BlockingIOError):
            while chunk := os.read(self.read_end, _READ_BYTES):
                *lines, self._rest = (self._rest + chunk).split(b"\n")
                if len(self._rest) > _READ_BYTES:
                    lines, self._rest = [*lines, self._rest], b""
                for line in lines:
                    self._print(prefix, line)

    @property
    def last_line(self) -> str:
        """The last line that says anything."""
        lines = [*self._lines, self._rest.decode(errors="replace")]
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def close(self) -> None:
        self.hand_over()
        os.close(self.read_end)

    def _print(self, prefix: str, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        self._lines.append(text)
        print(prefix, text, file=sys.stderr, flush=True)
