import json
import time
from pathlib import Path

import pytest

from infra.local.log_follower import LogFollower, follow_log
from tests.worker.support import wait_until


def line(event: str, logger: str = "autoscaler", level: str = "info") -> str:
    return json.dumps({"time": "2026-11-21T12:01:37.313Z", "level": level, "logger": logger, "event": event}) + "\n"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "part.log"


def append(log: Path, text: str) -> None:
    with log.open("a") as file:
        file.write(text)


def test_only_messages_of_the_logger_are_read(log: Path) -> None:
    append(
        log,
        line("1 request waits: starting a worker")
        + line("something else", logger="worker.autoscaler.other")
        + f"worker[7] {line('a worker that quotes it')}"
        + "Traceback (most recent call last):\n[1, 2]\n"
        + line("Redis cannot be reached", level="warning"),
    )
    assert LogFollower(log, "autoscaler").new() == ["1 request waits: starting a worker", "Redis cannot be reached"]


def test_each_complete_line_is_read_once(log: Path) -> None:
    follower = LogFollower(log, "autoscaler")
    assert follower.new() == []
    append(log, line("one")[:20])
    assert follower.new() == []
    append(log, line("one")[20:] + line("two").rstrip())
    assert follower.new() == ["one"]
    append(log, "\n")
    assert follower.new() == ["two"]
    assert follower.new() == []


def test_invalid_utf8_is_ignored(log: Path) -> None:
    log.write_bytes(b"\xff\xfe\n" + line("one").encode())
    assert LogFollower(log, "autoscaler").new() == ["one"]


def test_messages_are_passed_on_while_the_block_runs(log: Path) -> None:
    messages: list[str] = []
    with follow_log(log, "autoscaler", messages.append):
        append(log, line("one"))
        wait_until(lambda: messages == ["one"])
    append(log, line("two"))
    time.sleep(0.3)
    assert messages == ["one"]
