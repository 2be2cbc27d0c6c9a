"""Child processes that cannot outlive their parent, and that are stopped by pid, never by name."""

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
    """One process in a session of its own: a Ctrl-C at the terminal reaches the parent alone, which stops it."""

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
        """None while it runs."""
        return self._process.poll()

    def request_stop(self) -> None:
        if self.exit_status is None:
            self._process.terminate()

    def wait_or_kill(self, seconds: float) -> None:
        """Wait for the end; past `seconds` end the whole process group."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=max(seconds, 0.0))
        # Also after a clean end: a child of its own may have stayed behind.
        self.kill()

    def kill(self) -> None:
        """End the process and everything it started, at once."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        finally:
            self._process.wait()

    def last_lines(self, count: int = 15) -> str:
        """The end of its log."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-count:])


def spawn(
    command: Sequence[str], output: IO[bytes] | int, environment: Mapping[str, str], pass_fds: Sequence[int] = ()
) -> "subprocess.Popen[bytes]":
    """Start a process in a session of its own, which ends with this one. Raises OSError.

    To be called on a thread that lives as long as the process: the kernel takes the thread's end for the parent's.
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
    """Ask all of them to stop, then wait; whoever is still there after the grace is killed."""
    deadline = time.monotonic() + grace_seconds
    try:
        for child in children:
            child.request_stop()
        for child in children:
            child.wait_or_kill(deadline - time.monotonic())
    except BaseException:
        # A second Ctrl-C: no more waiting, but nothing stays behind either.
        for child in children:
            child.kill()
        raise


def die_with_parent() -> None:
    """From now on the kernel sends this process SIGTERM when its parent dies, even by SIGKILL."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def adopt_orphans() -> None:
    """From now on what a descendant leaves behind when it ends becomes a child of this process."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1)


def describe_exit(status: int) -> str:
    """An exit status as subprocess has it, a signal's number negative, in words."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"
