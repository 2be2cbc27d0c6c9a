"""Closing the terminal stops the whole stack, whichever process is the session leader."""

import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from infra.local.stack import ROOT

COMMAND = f"{sys.executable} -m infra.local --engine lexical --port 0"


class Terminal:
    """A pseudo-terminal that runs one command."""

    def __init__(self, pid: int, number: int) -> None:
        self.pid = pid
        self._number = number
        self._output = b""
        self._descendants: list[psutil.Process] = []

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + 30
        while text.encode() not in self._output:
            assert time.monotonic() < deadline, self._output.decode()
            if select.select([self._number], [], [], 0.1)[0]:
                self._output += os.read(self._number, 65536)

    def close(self) -> None:
        """Close the terminal. Records the descendants first: orphans lose their parent."""
        if self._number >= 0:
            with suppress(psutil.NoSuchProcess):
                self._descendants = psutil.Process(self.pid).children(recursive=True)
            os.close(self._number)
            self._number = -1

    def clean_up(self) -> None:
        """Close the terminal and kill all its processes."""
        self.close()
        for process in self._descendants:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        with suppress(ProcessLookupError):
            os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)


@contextmanager
def terminal(folder: Path, *command: str) -> Iterator[Terminal]:
    """Run a command as the session leader of a terminal, as a terminal window or ssh does."""
    # Not forkpty: a test process with threads must not be forked by Python.
    master, slave = os.openpty()
    program = (
        "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
        "os.execvp(sys.argv[1], sys.argv[1:])"
    )
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-S", "-c", program, *command],
        os.environ | {"TMPDIR": str(folder), "TERM": "xterm"},
        file_actions=[(os.POSIX_SPAWN_DUP2, slave, number) for number in (0, 1, 2)],
    )
    os.close(slave)
    opened = Terminal(pid, master)
    try:
        yield opened
    finally:
        opened.clean_up()


@pytest.fixture
def makefile(tmp_path: Path) -> Path:
    path = tmp_path / "Makefile"
    path.write_text(f"run:\n\t@true && exec {COMMAND}\n")
    return path


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("leader", ["make", "stack", "shell"])
@pytest.mark.parametrize("moment", ["starting the API", "Ctrl-C stops everything"], ids=["starting", "serving"])
def test_closing_the_terminal_stops_everything(
    scratch: Path, makefile: Path, leader: str, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    command = {
        "make": ["make", "-f", str(makefile), "run"],
        "stack": COMMAND.split(),
        "shell": ["bash", "-i", "-c", f"make -f {makefile} run; true"],
    }[leader]
    with terminal(scratch, *command) as opened:
        opened.wait_for(moment)
        processes = psutil.Process(opened.pid).children(recursive=True)
        assert len(processes) >= 3
        opened.close()
        _, alive = psutil.wait_procs(processes, timeout=20)
        assert alive == []
        # The leader deletes its files last, and leaving the block kills it.
        deadline = time.monotonic() + 10
        while list(scratch.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.05)
    assert list(scratch.iterdir()) == []


def test_stack_keeps_running_under_nohup(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    log = scratch / "log"
    with terminal(scratch, "sh", "-c", f"trap '' HUP; exec {COMMAND} > {log}") as opened:
        deadline = time.monotonic() + 30
        while "Ctrl-C stops everything" not in (log.read_text() if log.exists() else ""):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process = psutil.Process(opened.pid)
        processes = process.children(recursive=True)
        opened.close()
        _, alive = psutil.wait_procs(processes, timeout=1.5)
        assert len(alive) == len(processes)
        process.terminate()
        psutil.wait_procs(processes, timeout=20)
