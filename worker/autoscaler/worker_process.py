"""One worker process of this machine, as its launcher sees it: its state, its exit status and its output.

Owns the process and the pipe that it writes to. Refuses to decide when the worker starts or stops.
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

from shared.logs import event_of
from shared.pools.heartbeats import worker_name

_KEPT_LINES = 15
_READ_BYTES = 1 << 16
_PIPE_BYTES = 1 << 20
"""How much a worker can write before it blocks: the launcher does not read while it waits for Redis."""


class ProcessHandle(Protocol):
    """A running or requested process. `pid` is None until the process exists."""

    @property
    def pid(self) -> int | None: ...

    def poll(self) -> int | None:
        """The exit status as in subprocess.Popen; None while the process runs or does not exist yet."""


@dataclass(slots=True)
class WorkerProcess:
    """A worker of one model, from the request to start it until its process has ended.

    `devices` are the GPUs that it uses. `start_failure` is the reason why its start was aborted. `last_heartbeat_at`,
    `started_at` and `stopping_since` are times of `time.monotonic`.
    """

    model: str
    process: ProcessHandle
    output: "WorkerOutput"
    devices: tuple[str, ...] = ()
    started_at: float = field(default_factory=time.monotonic)
    last_heartbeat_at: float = field(default_factory=time.monotonic)
    was_ready: bool = False
    stopping_since: float | None = None
    start_failure: str = ""
    _stop_signal_sent: bool = False

    @property
    def name(self) -> str | None:
        """Its name in heartbeats; None while it has no process."""
        return None if self.process.pid is None else worker_name(self.process.pid)

    def request_stop(self) -> None:
        """Let the worker drain and exit. Sends SIGTERM only once, because a second one makes the worker exit at once.

        Call this again once the process exists, if there was none yet.
        """
        if self.stopping_since is None:
            self.stopping_since = time.monotonic()
        if not self._stop_signal_sent and self.process.pid is not None:
            self._stop_signal_sent = True
            self._signal(os.kill, signal.SIGTERM)

    def kill(self) -> None:
        """Kill the worker and every process that it started."""
        if self.stopping_since is None:
            self.stopping_since = time.monotonic()
        self._signal(os.killpg, signal.SIGKILL)

    def forward_output(self) -> None:
        """Print the lines that the worker has written since the last call."""
        self.output.forward(f"worker[{self.process.pid}]")

    def _signal(self, send: Callable[[int, int], None], number: int) -> None:
        # The kernel cannot reuse the pid before `poll` has returned a status.
        if self.process.pid is not None and self.process.poll() is None:
            with suppress(ProcessLookupError):
                send(self.process.pid, number)


class WorkerOutput:
    """A pipe for the output of one process. Prints complete lines to stderr and keeps the last ones."""

    def __init__(self) -> None:
        """Raises OSError."""
        self.read_end, self.write_end = os.pipe()
        os.set_blocking(self.read_end, False)
        with suppress(OSError):
            fcntl.fcntl(self.write_end, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._incomplete = b""

    def close_write_end(self) -> None:
        """Close this process's copy of the write end, after the worker has inherited it."""
        if self.write_end >= 0:
            os.close(self.write_end)
            self.write_end = -1

    def forward(self, prefix: str) -> None:
        """Print the complete lines that have arrived, with the prefix unless they are JSON. Never blocks."""
        with suppress(BlockingIOError):
            while chunk := os.read(self.read_end, _READ_BYTES):
                *lines, self._incomplete = (self._incomplete + chunk).split(b"\n")
                if len(self._incomplete) > _READ_BYTES:
                    lines, self._incomplete = [*lines, self._incomplete], b""
                for line in lines:
                    self._print(prefix, line)

    @property
    def last_line(self) -> str:
        """The last line that is not blank; of a log line, the event."""
        lines = [*self._lines, self._incomplete.decode(errors="replace")]
        return next((event_of(line.strip()) for line in reversed(lines) if line.strip()), "")

    def close(self) -> None:
        self.close_write_end()
        os.close(self.read_end)

    def _print(self, prefix: str, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        self._lines.append(text)
        # A log line has fields that tell which worker wrote it.
        print(text if text.startswith("{") else f"{prefix} {text}", file=sys.stderr, flush=True)
