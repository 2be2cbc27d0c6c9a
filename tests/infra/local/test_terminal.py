"""A terminal that is closed ends everything, whoever was told of it."""

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
    """A terminal with one command in it, until it is closed."""

    def __init__(self, pid: int, number: int) -> None:
        self.pid = pid
        self._number = number
        self._seen = b""
        self._family: list[psutil.Process] = []

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + 30
        while text.encode() not in self._seen:
            assert time.monotonic() < deadline, self._seen.decode()
            if select.select([self._number], [], [], 0.1)[0]:
                self._seen += os.read(self._number, 65536)

    def close(self) -> None:
        """Close the terminal. Who was in it is remembered: nobody tells later whose child an orphan was."""
        if self._number >= 0:
            with suppress(psutil.NoSuchProcess):
                self._family = psutil.Process(self.pid).children(recursive=True)
            os.close(self._number)
            self._number = -1

    def clear(self) -> None:
        """Close it, and leave nothing of it behind."""
        self.close()
        for process in self._family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        with suppress(ProcessLookupError):
            os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)


@contextmanager
def terminal(folder: Path, *command: str) -> Iterator[Terminal]:
    """The command is the leader of the terminal's session, as under a terminal's window or ssh."""
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
        opened.clear()


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


@pytest.mark.parametrize("leader", ["make", "itself", "a shell"])
@pytest.mark.parametrize("moment", ["starting the API", "Ctrl-C stops everything"], ids=["starting", "serving"])
def test_a_closed_terminal_stops_everything(
    scratch: Path, makefile: Path, leader: str, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    command = {
        "make": ["make", "-f", str(makefile), "run"],
        "itself": COMMAND.split(),
        "a shell": ["bash", "-i", "-c", f"make -f {makefile} run; true"],
    }[leader]
    with terminal(scratch, *command) as opened:
        opened.wait_for(moment)
        family = psutil.Process(opened.pid).children(recursive=True)
        assert len(family) >= 3
        opened.close()
        _, alive = psutil.wait_procs(family, timeout=20)
        assert alive == []
        # The leader deletes its files last, and leaving the block kills it.
        deadline = time.monotonic() + 10
        while list(scratch.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.05)
    assert list(scratch.iterdir()) == []


def test_under_nohup_it_goes_on(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    log = scratch / "log"
    with terminal(scratch, "sh", "-c", f"trap '' HUP; exec {COMMAND} > {log}") as opened:
        deadline = time.monotonic() + 30
        while "Ctrl-C stops everything" not in (log.read_text() if log.exists() else ""):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process = psutil.Process(opened.pid)
        family = process.children(recursive=True)
        opened.close()
        _, alive = psutil.wait_procs(family, timeout=1.5)
        assert len(alive) == len(family)
        process.terminate()
        psutil.wait_procs(family, timeout=20)
