"""The launcher's end of a standby: asks it for workers, and notices when it is no more. See worker.process.standby.

A worker that was asked for is there at once, without a process: the standby may still be importing, and waiting for it
is sooner than a start of one's own. Should it end before it has answered, the worker is `lost`: nothing runs.
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

AGAIN_SECONDS = 60.0
"""How long after a standby's end another one is tried."""
IMPORT_SECONDS = 120.0
ANSWER_SECONDS = 5.0
"""A standby that has imported everything forks in milliseconds; one that has not by then hangs, and is ended."""
_ANSWER_BYTES = 4096


class ForkedProcess:
    """A worker's process from a standby. The standby's orphan, and so a child of ours."""

    def __init__(self) -> None:
        self.pid: int | None = None
        self.lost = False
        self.asked_at = time.monotonic()
        self._status: int | None = None

    def poll(self) -> int | None:
        if self._status is None and self.pid is not None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                # It was never adopted, and has ended itself.
                pid, status = self.pid, 1 << 8
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status


class StandbyProcess:
    """One standby process."""

    def __init__(self, engines: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start it; it imports the engines by itself. Raises OSError."""
        self.alive = True
        self._ready_at = time.monotonic() + IMPORT_SECONDS
        """At the latest, until it says so."""
        self.refused = False
        """It cannot be forked, and another one could not either."""
        self._output = WorkerOutput()
        self._ids = count(1)
        self._asked: dict[int, ForkedProcess] = {}
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        flags = [part for engine in engines for part in ("--engine", engine)]
        command = [sys.executable, "-m", "worker.process.standby", "--socket", str(theirs.fileno()), *flags]
        try:
            with theirs:
                self._process = spawn(command, self._output.write_end, environment, pass_fds=[theirs.fileno()])
        except OSError:
            self._socket.close()
            self._output.close()
            raise
        self._output.hand_over()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def waited_for(self) -> bool:
        """Whether it was asked for a worker that is not there yet."""
        return bool(self._asked)

    def fork(self, arguments: Sequence[str], output: WorkerOutput, environment: Mapping[str, str]) -> ForkedProcess:
        """Ask for a worker; `environment` is what differs from the standby's own. Raises OSError."""
        number, process = next(self._ids), ForkedProcess()
        order = {"id": number, "arguments": list(arguments), "environment": dict(environment)}
        socket.send_fds(self._socket, [json.dumps(order).encode()], [output.write_end])
        self._asked[number] = process
        return process

    def listen(self) -> list[str]:
        """Hear what it has said; answers what of it is worth telling people."""
        self._output.pass_on("standby")
        said: list[str] = []
        while self.alive:
            try:
                message = self._socket.recv(_ANSWER_BYTES)
            except BlockingIOError:
                break
            except OSError:
                message = b""
            said += self._hear(json.loads(message)) if message else self._over()
        if self.alive and self._hangs():
            # Its end of the socket is closed then, which is heard in the next round.
            self._process.kill()
        return said

    def _hangs(self) -> bool:
        latest = time.monotonic() - ANSWER_SECONDS
        return any(max(process.asked_at, self._ready_at) < latest for process in self._asked.values())

    def close(self) -> None:
        """End it. Workers that it has forked go on."""
        self._process.kill()
        self._process.wait()
        # It may have answered in its last moment.
        self.listen()
        self._socket.close()
        self._output.close()

    def _hear(self, message: dict[str, object]) -> list[str]:
        match message:
            case {"ready": float(seconds), "bytes": int(size)}:
                self._ready_at = time.monotonic()
                return [f"a standby is ready after {seconds:.1f} s, it takes {size / 2**20:.0f} MiB"]
            case {"refused": str(reason)}:
                self.refused = True
                return [f"there is no standby: {reason}"]
            case {"id": int(number), "pid": int(pid)}:
                self._asked.pop(number).pid = pid
            case {"id": int(number), "failed": str(reason)}:
                self._asked.pop(number).lost = True
                return [f"the standby could not fork a worker: {reason}"]
        return []

    def _over(self) -> list[str]:
        """It has closed its end of the socket."""
        self.alive = False
        for process in self._asked.values():
            process.lost = True
        self._asked.clear()
        self._process.kill()
        status = self._process.wait()
        self._output.pass_on("standby")
        return [] if self.refused else [f"the standby {describe_exit(status)}; workers start without it"]


class StandbyManager:
    """Has a standby running, and another one some time after it has ended. Without engines there is none."""

    def __init__(self, engines: Sequence[str], environment: Mapping[str, str], say: Callable[[str], None]) -> None:
        self._engines = engines
        self._environment = environment
        self._say = say
        self._again_at = -math.inf if engines else math.inf
        self.current: StandbyProcess | None = None

    def tend(self) -> None:
        """Hear what the standby has said, and see to it that there is one. Never waits."""
        if self.current is None and time.monotonic() >= self._again_at:
            self._again_at = time.monotonic() + AGAIN_SECONDS
            try:
                self.current = StandbyProcess(self._engines, self._environment)
            except OSError as error:
                self._say(f"a standby could not be started: {error}")
        if self.current is None:
            return
        for sentence in self.current.listen():
            self._say(sentence)
        if not self.current.alive:
            self._again_at = math.inf if self.current.refused else time.monotonic() + AGAIN_SECONDS
            self.current.close()
            self.current = None

    def close(self) -> None:
        """End the standby, for good."""
        self._again_at = math.inf
        if self.current is not None:
            self.current.close()
            self.current = None
