import time
from pathlib import Path

import pytest

from infra.local.log_follower import LogFollower, follow_log
from tests.worker.support import wait_until

HEAD = "2026-11-21 12:01:37,313 INFO "


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "part.log"


def append(log: Path, text: str) -> None:
    with log.open("a") as file:
        file.write(text)


def test_only_messages_of_the_logger_are_read(log: Path) -> None:
    append(
        log,
        f"{HEAD}autoscaler: 1 request waits: starting a worker\n"
        f"{HEAD}worker.autoscaler.other: something else\n"
        f"worker[7] {HEAD}autoscaler: a worker that quotes it\n"
        "Traceback (most recent call last):\n"
        "2026-11-21 12:01:38,000 WARNING autoscaler: Redis cannot be reached\n",
    )
    assert LogFollower(log, "autoscaler").new() == ["1 request waits: starting a worker", "Redis cannot be reached"]


def test_each_complete_line_is_read_once(log: Path) -> None:
    follower = LogFollower(log, "autoscaler")
    assert follower.new() == []
    append(log, f"{HEAD}autosc")
    assert follower.new() == []
    append(log, f"aler: one\n{HEAD}autoscaler: two")
    assert follower.new() == ["one"]
    append(log, "\n")
    assert follower.new() == ["two"]
    assert follower.new() == []


def test_invalid_utf8_is_ignored(log: Path) -> None:
    log.write_bytes(b"\xff\xfe\n" + f"{HEAD}autoscaler: one\n".encode())
    assert LogFollower(log, "autoscaler").new() == ["one"]


def test_messages_are_passed_on_while_the_block_runs(log: Path) -> None:
    messages: list[str] = []
    with follow_log(log, "autoscaler", messages.append):
        append(log, f"{HEAD}autoscaler: one\n")
        wait_until(lambda: messages == ["one"])
    append(log, f"{HEAD}autoscaler: two\n")
    time.sleep(0.3)
    assert messages == ["one"]
