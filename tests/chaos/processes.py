"""Processes of the chaos tests: started on a leash, signalled and ended by pid alone."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from infra.local.stack import ROOT

_LEASH = Path(__file__).with_name("leash.py")


class Process:
    """One process in a session of its own. The thread that starts it has to outlive it: the leash hangs on it."""

    def __init__(self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.log = log
        self.started = time.monotonic()
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_LEASH), str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                cwd=ROOT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def send(self, number: signal.Signals) -> None:
        """Signal it; one that has ended is left alone."""
        if self.exit_status is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """End it and what it started, at once, also when it is stopped."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def wait(self, seconds: float) -> bool:
        """Whether it ended within `seconds`."""
        try:
            self._process.wait(timeout=max(seconds, 0.0))
        except subprocess.TimeoutExpired:
            return False
        return True

    def last_lines(self, count: int = 15) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])


def stop(processes: Iterable[Process], grace_seconds: float) -> None:
    """Ask all of them to end; whoever has not after the grace is killed."""
    everyone = list(processes)
    deadline = time.monotonic() + grace_seconds
    try:
        for process in everyone:
            process.send(signal.SIGCONT)
            process.send(signal.SIGTERM)
        for process in everyone:
            process.wait(deadline - time.monotonic())
    finally:
        for process in everyone:
            process.kill()
