"""When a process refuses to be a standby. autoscaler/test_launchers.py tests how a standby forks workers."""

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from worker.engines.base import EngineStartError
from worker.process import standby


@pytest.fixture
def launcher() -> Iterator[tuple[socket.socket, int]]:
    """The launcher's end of the socket, and the file descriptor of the standby's end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(5)
    yield ours, theirs.detach()
    ours.close()


def receive(launcher: socket.socket) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(launcher.recv(standby.MESSAGE_BYTES))
    return message


@pytest.fixture
def _another_thread() -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    yield
    stop.set()
    thread.join()


@pytest.mark.usefixtures("_another_thread")
def test_a_process_with_threads_refuses_to_be_a_standby(launcher: tuple[socket.socket, int]) -> None:
    ours, theirs = launcher
    assert standby.main(["--socket", str(theirs), "--engine", "lexical"]) == 1
    assert "have started threads" in receive(ours)["refused"]


def test_a_process_that_holds_a_device_refuses_to_be_a_standby(
    launcher: tuple[socket.socket, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = launcher
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    monkeypatch.setattr(standby, "_tasks", lambda: [])
    monkeypatch.setattr(standby, "holds_device", lambda: True)
    assert standby.main(["--socket", str(theirs)]) == 1
    assert "holds a device" in receive(ours)["refused"]


def test_a_process_whose_engine_cannot_be_imported_refuses_to_be_a_standby(
    launcher: tuple[socket.socket, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: str) -> None:
        raise EngineStartError("vLLM cannot be imported: no module named vllm")

    ours, theirs = launcher
    monkeypatch.setattr(standby, "import_engine", fail)
    assert standby.main(["--socket", str(theirs), "--engine", "vllm"]) == 1
    assert receive(ours) == {"refused": "vLLM cannot be imported: no module named vllm"}


def test_a_standby_ends_when_the_launcher_closes_its_socket(
    launcher: tuple[socket.socket, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = launcher
    monkeypatch.setattr(standby, "check_forkable", lambda: None)
    ours.shutdown(socket.SHUT_WR)
    assert standby.main(["--socket", str(theirs)]) == 0
    ready = receive(ours)
    assert ready["ready"] > 0
    assert ready["bytes"] > 1_000_000
