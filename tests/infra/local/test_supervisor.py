import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import redis

from infra.local.redis_server import start_redis
from infra.local.supervisor import HEALTHY_SECONDS, MAX_DELAY_SECONDS, Supervisor
from shared.errors import ConfigurationError
from shared.processes import ChildProcess, describe_exit, stop_all


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Spawner:
    """Starts a child that lives until it is killed, or the given program; counts, and fails when told to."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "part.log"
        self.program: list[str] = ["sleep", "60"]
        self.children: list[ChildProcess] = []
        self.error: Exception | None = None

    def __call__(self) -> ChildProcess:
        if self.error:
            raise self.error
        self.children.append(ChildProcess("part", self.program, self._log, os.environ))
        return self.children[-1]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def supervisor(clock: Clock) -> Supervisor:
    return Supervisor(clock)


@pytest.fixture
def spawner(tmp_path: Path) -> Iterator[Spawner]:
    made = Spawner(tmp_path)
    yield made
    stop_all(made.children, grace_seconds=5)


def until_it_ended(child: ChildProcess) -> None:
    deadline = time.monotonic() + 10
    while child.exit_status is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def end(child: ChildProcess, number: int = signal.SIGKILL) -> None:
    os.kill(child.pid, number)
    until_it_ended(child)


def delay_of(sentences: list[str]) -> float:
    (sentence,) = sentences
    return float(sentence.split("restarting in ")[1].split(" s")[0])


def test_whoever_runs_is_left_alone(supervisor: Supervisor, spawner: Spawner) -> None:
    child = supervisor.start("part", spawner)
    assert supervisor.restart_ended() == []
    assert supervisor.child("part") is child
    assert supervisor.children == [child]


def test_an_end_is_told_once_and_made_good_after_the_delay(
    supervisor: Supervisor, spawner: Spawner, clock: Clock, tmp_path: Path
) -> None:
    end(supervisor.start("worker-1", spawner))
    log = tmp_path / "part.log"
    told = f"worker-1 was terminated by SIGKILL; restarting in 0.5 s (log: {log})"
    assert supervisor.restart_ended() == [told]

    clock.now += 0.49
    assert supervisor.restart_ended() == []
    assert supervisor.children == []
    clock.now += 0.01
    assert supervisor.restart_ended() == []
    assert len(spawner.children) == 2
    assert supervisor.child("worker-1") is spawner.children[1]
    assert supervisor.children == [spawner.children[1]]


def test_ends_at_once_again_and_again_are_answered_later_and_later(
    supervisor: Supervisor, spawner: Spawner, clock: Clock
) -> None:
    spawner.program = [sys.executable, "-S", "-c", "raise SystemExit(3)"]
    supervisor.start("part", spawner)
    delays = []
    for _ in range(9):
        until_it_ended(spawner.children[-1])
        delays.append(delay_of(supervisor.restart_ended()))
        for _ in range(100):
            assert supervisor.restart_ended() == []
        clock.now += delays[-1]
        assert supervisor.restart_ended() == []
    assert delays == [0.5, 1, 2, 4, 8, 16, MAX_DELAY_SECONDS, MAX_DELAY_SECONDS, MAX_DELAY_SECONDS]
    assert len(spawner.children) == 10


def test_a_minute_of_health_is_a_new_beginning(supervisor: Supervisor, spawner: Spawner, clock: Clock) -> None:
    supervisor.start("part", spawner)
    delays = []
    for lived in (1.0, 1.0, HEALTHY_SECONDS - 0.1, HEALTHY_SECONDS, 1.0):
        clock.now += lived
        end(spawner.children[-1])
        delays.append(delay_of(supervisor.restart_ended()))
        clock.now += delays[-1]
        supervisor.restart_ended()
    assert delays == [0.5, 1, 2, 0.5, 1]


def test_each_part_has_its_own_delay(supervisor: Supervisor, spawner: Spawner, clock: Clock) -> None:
    first, second = supervisor.start("first", spawner), supervisor.start("second", spawner)
    end(first)
    assert delay_of(supervisor.restart_ended()) == 0.5
    clock.now += 0.5
    supervisor.restart_ended()
    end(supervisor.child("first"))
    end(second)
    assert [sentence.split(" (")[0] for sentence in supervisor.restart_ended()] == [
        "first was terminated by SIGKILL; restarting in 1 s",
        "second was terminated by SIGKILL; restarting in 0.5 s",
    ]


@pytest.mark.parametrize(
    "error",
    [
        OSError(11, "Resource temporarily unavailable"),
        subprocess.SubprocessError("before exec"),
        ConfigurationError("there is no redis-server here"),
    ],
)
def test_a_start_that_fails_is_tried_again_later(
    supervisor: Supervisor, spawner: Spawner, clock: Clock, error: Exception
) -> None:
    end(supervisor.start("part", spawner))
    supervisor.restart_ended()
    spawner.error = error
    clock.now += 0.5
    (told,) = supervisor.restart_ended()
    assert told.startswith(f"part could not be started ({error}); restarting in 1 s")
    assert supervisor.restart_ended() == []
    spawner.error = None
    clock.now += 1
    assert supervisor.restart_ended() == []
    assert len(supervisor.children) == 1


def test_a_first_start_that_fails_is_the_callers_to_tell(supervisor: Supervisor, spawner: Spawner) -> None:
    spawner.error = OSError("no")
    with pytest.raises(OSError, match="no"):
        supervisor.start("part", spawner)
    assert supervisor.children == []


def test_what_an_ended_process_has_started_does_not_live_on(
    supervisor: Supervisor, spawner: Spawner, tmp_path: Path
) -> None:
    spawner.program = [
        "sh",
        "-c",
        f"sleep 60 & echo $! > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; wait",
    ]
    child = supervisor.start("part", spawner)
    deadline = time.monotonic() + 10
    while not (tmp_path / "pid").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with suppress(psutil.NoSuchProcess):
        orphan = psutil.Process(int((tmp_path / "pid").read_text()))
        end(child)
        supervisor.restart_ended()
        orphan.wait(timeout=10)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "exited with status 0"),
        (1, "exited with status 1"),
        (-15, "was terminated by SIGTERM"),
        (-35, "was terminated by signal 35"),
    ],
)
def test_an_end_is_said_in_words(status: int, words: str) -> None:
    assert describe_exit(status) == words


def test_redis_killed_and_started_again_has_what_it_had(tmp_path: Path) -> None:
    child, url = start_redis(tmp_path, os.environ)
    with redis.Redis.from_url(url) as client:
        client.set("job", "accepted")
    end(child)
    child, again = start_redis(tmp_path, os.environ, int(url.rpartition(":")[2].split("/")[0]))
    try:
        assert again == url
        with redis.Redis.from_url(url) as client:
            assert client.get("job") == b"accepted"
    finally:
        stop_all([child], grace_seconds=5)
