"""The supervisor with real processes, which run small servers instead of the API."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from infra.local.redis_server import free_port
from infra.local.stack import ROOT

SERVERS = {
    # Answers with its pid; ends with SIGTERM.
    "answers": """
        for listening in sockets: listening.listen()
        while True:
            connection, _ = sockets[0].accept()
            connection.sendall(str(os.getpid()).encode()); connection.close()
    """,
    "does not start": "sys.exit(3)",
    "dies at once": "os.kill(os.getpid(), signal.SIGKILL)",
    "ignores SIGTERM": """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sockets[0].listen()
        while True: time.sleep(60)
    """,
}
PROGRAM = """
import logging, os, signal, sys, textwrap, time
from api.processes.group import ProcessGroup
from api.processes.sockets import ListeningAddress
from api.processes.supervisor import Supervisor
logging.basicConfig(level="INFO")
def serve(sockets): exec(textwrap.dedent(sys.argv[2]))
forks, fork = 0, os.fork
def fork_or_fail():
    global forks
    forks += 1
    if forks == int(os.environ.get("FAILING_FORK", "0")):
        raise BlockingIOError("Resource temporarily unavailable")
    return fork()
os.fork = fork_or_fail
sys.exit(Supervisor(ProcessGroup(2), ListeningAddress("127.0.0.1", int(sys.argv[1])), serve, stop_seconds=1).run())
"""


class Supervised:
    """A running supervisor with two processes."""

    def __init__(self, server: str, output: Path, failing_fork: int = 0) -> None:
        """The fork with the number `failing_fork` fails; 0: none."""
        self.port = free_port()
        self.output = output
        with output.open("w") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(self.port), SERVERS[server]],
                cwd=ROOT,
                env=os.environ | {"FAILING_FORK": str(failing_fork)},
                stderr=stream,
            )

    def ask(self) -> int:
        """The pid of the process that answers a new connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            return int(connection.recv(100))

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def wait_until_listening(self) -> None:
        """Wait until both processes listen."""
        deadline = time.monotonic() + 30
        while self._listening() != [self.port, self.port]:
            assert time.monotonic() < deadline, self.output.read_text()
            time.sleep(0.02)

    def wait_for_text(self, text: str) -> None:
        deadline = time.monotonic() + 30
        while text not in self.output.read_text():
            assert time.monotonic() < deadline, self.output.read_text()
            time.sleep(0.02)

    def _listening(self) -> list[int]:
        """The port of each listening socket that a child holds."""
        ports: list[int] = []
        for child in self.children():
            with suppress(psutil.Error):
                connections = child.net_connections("tcp")
                ports += [each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN]
        return ports


@contextmanager
def supervised(server: str, folder: Path, failing_fork: int = 0) -> Iterator[Supervised]:
    running = Supervised(server, folder / "output", failing_fork)
    try:
        yield running
    finally:
        # Its children end with it.
        running.process.kill()
        running.process.wait()


def test_all_processes_answer_and_each_holds_only_its_own_socket(tmp_path: Path) -> None:
    with supervised("answers", tmp_path) as running:
        running.wait_until_listening()
        answering = {running.ask() for _ in range(40)}
        assert answering == {child.pid for child in running.children()}


def test_killed_process_is_replaced_and_no_new_connection_fails(tmp_path: Path) -> None:
    with supervised("answers", tmp_path) as running:
        running.wait_until_listening()
        children = {child.pid: child for child in running.children()}
        before, victim = set(children), min(children)
        children[victim].kill()
        # Until then it may accept another connection.
        children[victim].wait(timeout=10)
        # Connections that the kernel gives to the killed process's socket wait for its successor.
        answering = {running.ask() for _ in range(40)}
        (survivor,) = before - {victim}
        assert survivor in answering
        assert len(answering - before) == 1
        running.wait_for_text("a process of the API was terminated by SIGKILL; it is restarted now")


def test_restart_that_fails_is_tried_again(tmp_path: Path) -> None:
    with supervised("answers", tmp_path, failing_fork=3) as running:
        running.wait_until_listening()
        os.kill(min(child.pid for child in running.children()), signal.SIGKILL)
        running.wait_for_text("could not be started (Resource temporarily unavailable); it is restarted in 0.5 s")
        running.wait_until_listening()
        assert len({running.ask() for _ in range(40)}) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_all_processes(tmp_path: Path, number: signal.Signals) -> None:
    with supervised("answers", tmp_path) as running:
        running.wait_until_listening()
        children = running.children()
        running.process.send_signal(number)
        assert running.process.wait(timeout=10) == 0
        assert not any(child.is_running() for child in children)
        with pytest.raises(ConnectionRefusedError):
            running.ask()


def test_processes_that_do_not_stop_are_killed(tmp_path: Path) -> None:
    with supervised("ignores SIGTERM", tmp_path) as running:
        running.wait_until_listening()
        children = running.children()
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(timeout=10) == 0
        assert not any(child.is_running() for child in children)
        assert "has not stopped, it is killed" in running.output.read_text()


def test_processes_end_with_a_killed_supervisor(tmp_path: Path) -> None:
    with supervised("answers", tmp_path) as running:
        running.wait_until_listening()
        children = running.children()
        running.process.kill()
        assert psutil.wait_procs(children, timeout=10)[1] == []


def test_failed_start_ends_everything_with_its_status(tmp_path: Path) -> None:
    with supervised("does not start", tmp_path) as running:
        assert running.process.wait(timeout=30) == 3


def test_process_that_keeps_dying_is_restarted_after_growing_pauses(tmp_path: Path) -> None:
    with supervised("dies at once", tmp_path) as running:
        for when in ("now", "in 0.5 s", "in 1 s"):
            running.wait_for_text(f"a process of the API was terminated by SIGKILL; it is restarted {when}")
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(timeout=10) == 0
