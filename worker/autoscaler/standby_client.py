"""The launcher's side of the standby: starts it, requests workers from it, and notices its end.

A requested worker has no process until the standby replies: the standby may still be importing the engine, and waiting
for that takes less time than a start without it. If the standby ends before it replies, `ForkedProcess.failed` is set.
worker.process.standby is the other side, and documents the messages.
"""

import json
import math
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import count

from shared.processes import describe_exit, spawn
from worker.autoscaler.worker_process import WorkerOutput

RESTART_SECONDS = 60.0
"""Pause before another standby is started after one has ended."""
IMPORT_SECONDS = 120.0
"""How long the imports of a standby may take before the fork timeout begins."""
FORK_TIMEOUT_SECONDS = 5.0
"""A standby that has imported its engines forks in milliseconds. One that exceeds this timeout hangs and is killed."""
_MESSAGE_BYTES = 4096


class ForkedProcess:
    """A worker process that a standby forks. The kernel makes it a child of this process."""

    def __init__(self) -> None:
        self.pid: int | None = None
        self.failed = False
        """Whether the standby could not fork it, so that there never will be a process."""
        self.requested_at = time.monotonic()
        self._status: int | None = None

    def poll(self) -> int | None:
        if self._status is None and self.pid is not None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                # It never became a child of this process, and has exited with status 1.
                pid, status = self.pid, 1 << 8
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status


class StandbyProcess:
    """One standby process."""

    def __init__(self, engines: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start the process, which then imports the engines. Raises OSError."""
        self.alive = True
        self.refused = False
        """Whether it cannot be forked. Another standby could not be forked either."""
        self._ready_at = time.monotonic() + IMPORT_SECONDS
        """The latest time at which it should be ready, then the time at which it became ready."""
        self._output = WorkerOutput()
        self._ids = count(1)
        self._pending: dict[int, ForkedProcess] = {}
        self._socket, standby_socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        flags = [part for engine in engines for part in ("--engine", engine)]
        command = [sys.executable, "-m", "worker.process.standby", "--socket", str(standby_socket.fileno()), *flags]
        try:
            with standby_socket:
                self._process = spawn(command, self._output.write_end, environment, pass_fds=[standby_socket.fileno()])
        except OSError:
            self._socket.close()
            self._output.close()
            raise
        self._output.close_write_end()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_pending_forks(self) -> bool:
        """Whether the standby has not replied to a request yet."""
        return bool(self._pending)

    def fork(self, arguments: Sequence[str], output: WorkerOutput, environment: Mapping[str, str]) -> ForkedProcess:
        """Request a worker. `environment` holds only variables that differ from the standby's. Raises OSError."""
        number, process = next(self._ids), ForkedProcess()
        request = {"id": number, "arguments": list(arguments), "environment": dict(environment)}
        socket.send_fds(self._socket, [json.dumps(request).encode()], [output.write_end])
        self._pending[number] = process
        return process

    def read_messages(self) -> list[str]:
        """Process new messages, and kill a standby that hangs. Returns messages for the operator. Never blocks."""
        self._output.forward("standby")
        announcements: list[str] = []
        while self.alive:
            try:
                message = self._socket.recv(_MESSAGE_BYTES)
            except BlockingIOError:
                break
            except OSError:
                message = b""
            announcements += self._handle(json.loads(message)) if message else self._on_disconnect()
        if self.alive and self._hangs():
            # This closes its end of the socket, which the next call notices.
            self._process.kill()
        return announcements

    def close(self) -> None:
        """Kill the standby. Workers that it has forked continue."""
        self._process.kill()
        self._process.wait()
        # Its last replies may not have been read yet.
        self.read_messages()
        self._socket.close()
        self._output.close()

    def _hangs(self) -> bool:
        deadline = time.monotonic() - FORK_TIMEOUT_SECONDS
        return any(max(process.requested_at, self._ready_at) < deadline for process in self._pending.values())

    def _handle(self, message: dict[str, object]) -> list[str]:
        match message:
            case {"ready": float(seconds), "bytes": int(size)}:
                self._ready_at = time.monotonic()
                return [f"a standby is ready after {seconds:.1f} s and uses {size / 2**20:.0f} MiB"]
            case {"refused": str(reason)}:
                self.refused = True
                return [f"no standby is available: {reason}"]
            case {"id": int(number), "pid": int(pid)}:
                self._pending.pop(number).pid = pid
            case {"id": int(number), "failed": str(reason)}:
                self._pending.pop(number).failed = True
                return [f"the standby could not fork a worker: {reason}"]
        return []

    def _on_disconnect(self) -> list[str]:
        """The standby has closed its end of the socket."""
        self.alive = False
        for process in self._pending.values():
            process.failed = True
        self._pending.clear()
        self._process.kill()
        status = self._process.wait()
        self._output.forward("standby")
        return [] if self.refused else [f"the standby {describe_exit(status)}; workers start without it"]


class StandbyManager:
    """Keeps one standby running, and starts another one some time after it has ended. Without engines it does nothing.

    `announce` receives messages for the operator.
    """

    def __init__(self, engines: Sequence[str], environment: Mapping[str, str], announce: Callable[[str], None]) -> None:
        self._engines = engines
        self._environment = environment
        self._announce = announce
        self._next_start_at = -math.inf if engines else math.inf
        self.current: StandbyProcess | None = None

    def check(self) -> None:
        """Read the standby's messages, and start a standby when one is due. Never blocks."""
        if self.current is None and time.monotonic() >= self._next_start_at:
            self._next_start_at = time.monotonic() + RESTART_SECONDS
            try:
                self.current = StandbyProcess(self._engines, self._environment)
            except OSError as error:
                self._announce(f"a standby could not be started: {error}")
        if self.current is None:
            return
        for message in self.current.read_messages():
            self._announce(message)
        if not self.current.alive:
            self._next_start_at = math.inf if self.current.refused else time.monotonic() + RESTART_SECONDS
            self.current.close()
            self.current = None

    def close(self) -> None:
        """Kill the standby, and start no other one."""
        self._next_start_at = math.inf
        if self.current is not None:
            self.current.close()
            self.current = None
