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


def test_only_what_the_logger_itself_says_is_read(log: Path) -> None:
    append(
        log,
        f"{HEAD}autoscaler: 1 request waits: starting a worker\n"
        f"{HEAD}worker.autoscaler.other: something else\n"
        f"worker[7] {HEAD}autoscaler: a worker that talks about it\n"
        "Traceback (most recent call last):\n"
        "2026-11-21 12:01:38,000 WARNING autoscaler: Redis cannot be reached\n",
    )
    assert LogFollower(log, "autoscaler").new() == ["1 request waits: starting a worker", "Redis cannot be reached"]


def test_each_line_once_and_only_when_it_is_whole(log: Path) -> None:
    follower = LogFollower(log, "autoscaler")
    assert follower.new() == []
    append(log, f"{HEAD}autosc")
    assert follower.new() == []
    append(log, f"aler: one\n{HEAD}autoscaler: two")
    assert follower.new() == ["one"]
    append(log, "\n")
    assert follower.new() == ["two"]
    assert follower.new() == []


def test_what_is_no_text_stops_nobody(log: Path) -> None:
    log.write_bytes(b"\xff\xfe\n" + f"{HEAD}autoscaler: one\n".encode())
    assert LogFollower(log, "autoscaler").new() == ["one"]


def test_it_is_told_as_it_comes_and_no_longer_than_wanted(log: Path) -> None:
    told: list[str] = []
    with follow_log(log, "autoscaler", told.append):
        append(log, f"{HEAD}autoscaler: one\n")
        wait_until(lambda: told == ["one"])
    append(log, f"{HEAD}autoscaler: two\n")
    time.sleep(0.3)
    assert told == ["one"]
