"""What a standby refuses. How it forks is tested with those who ask it: see autoscaler/test_launchers.py."""

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
    """The launcher's end, and the descriptor of the other one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(5)
    yield ours, theirs.detach()
    ours.close()


def heard(launcher: socket.socket) -> dict[str, Any]:
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
def test_a_process_with_threads_is_no_standby(launcher: tuple[socket.socket, int]) -> None:
    ours, theirs = launcher
    assert standby.main(["--socket", str(theirs), "--engine", "lexical"]) == 1
    assert "has started threads" in heard(ours)["refused"]


def test_nor_is_one_that_holds_a_device(launcher: tuple[socket.socket, int], monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = launcher
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    monkeypatch.setattr(standby, "_tasks", lambda: [])
    monkeypatch.setattr(standby, "holds_device", lambda: True)
    assert standby.main(["--socket", str(theirs)]) == 1
    assert "holds a device" in heard(ours)["refused"]


def test_nor_one_whose_engine_cannot_be_imported(
    launcher: tuple[socket.socket, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: str) -> None:
        raise EngineStartError("vLLM cannot be imported: no module named vllm")

    ours, theirs = launcher
    monkeypatch.setattr(standby, "import_engine", fail)
    assert standby.main(["--socket", str(theirs), "--engine", "vllm"]) == 1
    assert heard(ours) == {"refused": "vLLM cannot be imported: no module named vllm"}


def test_it_ends_with_its_launcher(launcher: tuple[socket.socket, int], monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = launcher
    monkeypatch.setattr(standby, "check_that_it_can_be_forked", lambda: None)
    ours.shutdown(socket.SHUT_WR)
    assert standby.main(["--socket", str(theirs)]) == 0
    ready = heard(ours)
    assert ready["ready"] > 0
    assert ready["bytes"] > 1_000_000
