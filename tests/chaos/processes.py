"""Child processes of the chaos tests. They are killed when the test process ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from infra.local.stack import ROOT

_LAUNCHER = Path(__file__).with_name("die_with_parent.py")


class Process:
    """A process in its own session. It is killed when the thread that started it ends."""

    def __init__(self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.log = log
        self.started = time.monotonic()
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()), *command],
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
        """None while the process runs."""
        return self._process.poll()

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        if self.exit_status is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """Kill the process and its children, even if it is paused."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def wait(self, seconds: float) -> bool:
        """Wait. Returns whether the process ended within `seconds`."""
        try:
            self._process.wait(timeout=max(seconds, 0.0))
        except subprocess.TimeoutExpired:
            return False
        return True

    def last_lines(self, count: int = 15) -> str:
        """The last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])


def stop(processes: Iterable[Process], grace_seconds: float) -> None:
    """Terminate all processes, and kill those that have not ended after the grace period."""
    all_processes = list(processes)
    deadline = time.monotonic() + grace_seconds
    try:
        for process in all_processes:
            process.send(signal.SIGCONT)
            process.send(signal.SIGTERM)
        for process in all_processes:
            process.wait(deadline - time.monotonic())
    finally:
        for process in all_processes:
            process.kill()
