"""Child processes that end when their parent ends, and are stopped by pid.

Owns starting, stopping and killing them. Knows nothing about what they run.
"""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LIBC = ctypes.CDLL(None, use_errno=True)


class ChildProcess:
    """A child process in a separate session, with its output appended to a log file.

    Ctrl-C at the terminal reaches only the parent, which then stops its children.
    """

    def __init__(self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._process = spawn(command, output, environment)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        """None while the process runs; the negative signal number when a signal terminated it."""
        return self._process.poll()

    def request_stop(self) -> None:
        """Send SIGTERM."""
        if self.exit_status is None:
            self._process.terminate()

    def wait_or_kill(self, seconds: float) -> None:
        """Wait up to `seconds` for the process to exit, then kill its process group."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=max(seconds, 0.0))
        # Also after a clean exit: the process may have left children behind.
        self.kill()

    def kill(self) -> None:
        """Kill the process and its children, and wait for the process to exit."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        finally:
            self._process.wait()

    def last_lines(self, count: int = 15) -> str:
        """The last lines of the log."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-count:])


def spawn(
    command: Sequence[str], output: IO[bytes] | int, environment: Mapping[str, str], pass_fds: Sequence[int] = ()
) -> "subprocess.Popen[bytes]":
    """Start a process in a new session; the kernel terminates it when this process ends. Raises OSError.

    Call this on a thread that lives as long as the child: the kernel signals the child when that thread ends.
    """
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=dict(environment),
        start_new_session=True,
        preexec_fn=die_with_parent,
        pass_fds=pass_fds,
    )


def stop_all(children: Sequence[ChildProcess], grace_seconds: float) -> None:
    """Send SIGTERM to all children, wait up to `grace_seconds` in total, and kill those that still run."""
    deadline = time.monotonic() + grace_seconds
    try:
        for child in children:
            child.request_stop()
        for child in children:
            child.wait_or_kill(deadline - time.monotonic())
    except BaseException:
        # A second Ctrl-C ends the waiting; the children are killed all the same.
        for child in children:
            child.kill()
        raise


def die_with_parent() -> None:
    """Make the kernel send this process SIGTERM when its parent ends, even by SIGKILL."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def adopt_orphans() -> None:
    """Make this process the parent of processes that its descendants leave behind."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1)


def describe_exit(status: int) -> str:
    """Describe an exit status of `subprocess`, where a negative number is a signal: "was terminated by SIGKILL"."""
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was terminated by {signal.Signals(-status).name}"
    except ValueError:
        return f"was terminated by signal {-status}"
