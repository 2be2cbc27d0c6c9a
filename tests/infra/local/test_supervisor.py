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


class FakeClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Spawner:
    """Starts and records children that run `program`; raises `error` instead when it is set."""

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
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def supervisor(clock: FakeClock) -> Supervisor:
    return Supervisor(clock)


@pytest.fixture
def spawner(tmp_path: Path) -> Iterator[Spawner]:
    made = Spawner(tmp_path)
    yield made
    stop_all(made.children, grace_seconds=5)


def wait_for_exit(child: ChildProcess) -> None:
    deadline = time.monotonic() + 10
    while child.exit_status is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def kill(child: ChildProcess, number: int = signal.SIGKILL) -> None:
    os.kill(child.pid, number)
    wait_for_exit(child)


def delay_of(sentences: list[str]) -> float:
    (sentence,) = sentences
    return float(sentence.split("restarting in ")[1].split(" s")[0])


def test_running_process_is_not_restarted(supervisor: Supervisor, spawner: Spawner) -> None:
    child = supervisor.start("part", spawner)
    assert supervisor.restart_ended() == []
    assert supervisor.child("part") is child
    assert supervisor.children == [child]


def test_ended_process_is_reported_once_and_restarted_after_the_delay(
    supervisor: Supervisor, spawner: Spawner, clock: FakeClock, tmp_path: Path
) -> None:
    kill(supervisor.start("worker-1", spawner))
    log = tmp_path / "part.log"
    sentence = f"worker-1 was terminated by SIGKILL; restarting in 0.5 s (log: {log})"
    assert supervisor.restart_ended() == [sentence]

    clock.now += 0.49
    assert supervisor.restart_ended() == []
    assert supervisor.children == []
    clock.now += 0.01
    assert supervisor.restart_ended() == []
    assert len(spawner.children) == 2
    assert supervisor.child("worker-1") is spawner.children[1]
    assert supervisor.children == [spawner.children[1]]


def test_restart_delay_doubles_up_to_the_maximum(supervisor: Supervisor, spawner: Spawner, clock: FakeClock) -> None:
    spawner.program = [sys.executable, "-S", "-c", "raise SystemExit(3)"]
    supervisor.start("part", spawner)
    delays = []
    for _ in range(9):
        wait_for_exit(spawner.children[-1])
        delays.append(delay_of(supervisor.restart_ended()))
        for _ in range(100):
            assert supervisor.restart_ended() == []
        clock.now += delays[-1]
        assert supervisor.restart_ended() == []
    assert delays == [0.5, 1, 2, 4, 8, 16, MAX_DELAY_SECONDS, MAX_DELAY_SECONDS, MAX_DELAY_SECONDS]
    assert len(spawner.children) == 10


def test_restart_delay_is_reset_after_a_minute_of_running(
    supervisor: Supervisor, spawner: Spawner, clock: FakeClock
) -> None:
    supervisor.start("part", spawner)
    delays = []
    for lifetime in (1.0, 1.0, HEALTHY_SECONDS - 0.1, HEALTHY_SECONDS, 1.0):
        clock.now += lifetime
        kill(spawner.children[-1])
        delays.append(delay_of(supervisor.restart_ended()))
        clock.now += delays[-1]
        supervisor.restart_ended()
    assert delays == [0.5, 1, 2, 0.5, 1]


def test_each_process_has_its_own_delay(supervisor: Supervisor, spawner: Spawner, clock: FakeClock) -> None:
    first, second = supervisor.start("first", spawner), supervisor.start("second", spawner)
    kill(first)
    assert delay_of(supervisor.restart_ended()) == 0.5
    clock.now += 0.5
    supervisor.restart_ended()
    kill(supervisor.child("first"))
    kill(second)
    assert [sentence.split(" (")[0] for sentence in supervisor.restart_ended()] == [
        "first was terminated by SIGKILL; restarting in 1 s",
        "second was terminated by SIGKILL; restarting in 0.5 s",
    ]


@pytest.mark.parametrize(
    "error",
    [
        OSError(11, "Resource temporarily unavailable"),
        subprocess.SubprocessError("before exec"),
        ConfigurationError("no Redis server is installed"),
    ],
)
def test_failed_restart_is_retried(
    supervisor: Supervisor, spawner: Spawner, clock: FakeClock, error: Exception
) -> None:
    kill(supervisor.start("part", spawner))
    supervisor.restart_ended()
    spawner.error = error
    clock.now += 0.5
    (sentence,) = supervisor.restart_ended()
    assert sentence.startswith(f"part could not be started ({error}); restarting in 1 s")
    assert supervisor.restart_ended() == []
    spawner.error = None
    clock.now += 1
    assert supervisor.restart_ended() == []
    assert len(supervisor.children) == 1


def test_failed_first_start_raises_the_error(supervisor: Supervisor, spawner: Spawner) -> None:
    spawner.error = OSError("no")
    with pytest.raises(OSError, match="no"):
        supervisor.start("part", spawner)
    assert supervisor.children == []


def test_children_of_an_ended_process_are_killed(supervisor: Supervisor, spawner: Spawner, tmp_path: Path) -> None:
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
        kill(child)
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
def test_exit_status_is_described(status: int, words: str) -> None:
    assert describe_exit(status) == words


def test_restarted_redis_has_its_data(tmp_path: Path) -> None:
    child, url = start_redis(tmp_path, os.environ)
    with redis.Redis.from_url(url) as client:
        client.set("job", "accepted")
    kill(child)
    child, again = start_redis(tmp_path, os.environ, int(url.rpartition(":")[2].split("/")[0]))
    try:
        assert again == url
        with redis.Redis.from_url(url) as client:
            assert client.get("job") == b"accepted"
    finally:
        stop_all([child], grace_seconds=5)
