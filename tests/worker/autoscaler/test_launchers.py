"""Real processes, with the lexical engine; a standby is one of them."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from shared.keys import pool_keys
from shared.models import ModelSpec
from shared.pools.heartbeats import WorkerState, read_heartbeats
from shared.processes import spawn
from tests.shared.support import MODEL
from tests.stacks import write_models
from tests.worker.support import wait_until
from worker.autoscaler import standby_client
from worker.autoscaler.launchers import LaunchOptions, LocalLauncher, WorkerExit
from worker.autoscaler.worker_process import WorkerProcess

SPEC = ModelSpec(name=MODEL, engine="lexical")


@pytest.fixture
def environment(tmp_path: Path, redis_url: str) -> dict[str, str]:
    return os.environ | {
        "RERANKQ_MODELS_FILE": write_models(tmp_path),
        "REDIS_URL": redis_url,
        "RERANKQ_DRAIN_SECONDS": "1",
    }


@pytest.fixture
def said() -> list[str]:
    return []


Launch = Callable[..., LocalLauncher]


@pytest.fixture
def launch(environment: dict[str, str], said: list[str]) -> Iterator[Launch]:
    made: list[LocalLauncher] = []

    def launch(**changes: Any) -> LocalLauncher:
        made.append(LocalLauncher(LaunchOptions(**({"environment": environment} | changes)), said.append))
        return made[-1]

    yield launch
    for launcher in made:
        launcher.close(lambda: False)


@pytest.fixture
def states(redis_client: Any) -> Callable[[], dict[str, WorkerState]]:
    return lambda: {beat.worker: beat.state for beat in read_heartbeats(redis_client.hgetall(pool_keys.workers(MODEL)))}


States = Callable[[], dict[str, WorkerState]]


def start(launcher: LocalLauncher, states: States) -> WorkerProcess:
    """A worker that takes work."""
    launcher.start(SPEC)
    worker = launcher.workers(MODEL)[-1]

    def is_ready() -> bool:
        assert launcher.reap() == []
        return worker.name is not None and states().get(worker.name) is WorkerState.READY

    wait_until(is_ready, seconds=30)
    return worker


def ended(launcher: LocalLauncher) -> WorkerExit:
    """The next one that ends."""
    ends: list[WorkerExit] = []

    def has_ended() -> bool:
        ends.extend(launcher.reap())
        return bool(ends)

    wait_until(has_ended, seconds=20)
    (end,) = ends
    return end


def pid_of(worker: WorkerProcess) -> int:
    assert worker.process.pid is not None
    return worker.process.pid


def with_standby() -> dict[str, Any]:
    return {"standby_models": frozenset({MODEL}), "standby_engines": ["lexical"]}


@pytest.fixture(params=["plain", "standby"])
def launcher(request: pytest.FixtureRequest, launch: Launch) -> LocalLauncher:
    return launch(**(with_standby() if request.param == "standby" else {}))


def test_a_worker_starts_and_stops_and_its_status_comes_back(launcher: LocalLauncher, states: States) -> None:
    worker = start(launcher, states)
    worker.request_stop()
    end = ended(launcher)
    assert (end.worker, end.status) == (worker, 0)
    assert launcher.workers(MODEL) == []
    assert states() == {}


def test_how_one_was_killed_comes_back_too(launcher: LocalLauncher, states: States) -> None:
    worker = start(launcher, states)
    os.kill(pid_of(worker), signal.SIGKILL)
    assert ended(launcher).status == -signal.SIGKILL


def test_it_is_a_child_of_ours_in_a_session_of_its_own(launcher: LocalLauncher, states: States) -> None:
    pid = pid_of(start(launcher, states))
    assert psutil.Process(pid).ppid() == os.getpid()
    assert os.getsid(pid) == pid


def test_what_it_writes_is_passed_on(
    launcher: LocalLauncher, states: States, capfd: pytest.CaptureFixture[str]
) -> None:
    worker = start(launcher, states)
    launcher.reap()
    assert f"worker[{worker.process.pid}] " in capfd.readouterr().err


def test_closing_stops_all_of_them(launch: Launch, states: States) -> None:
    launcher = launch(**with_standby())
    pids = [pid_of(start(launcher, states)) for _ in range(2)]
    ends = launcher.close(lambda: False)
    assert sorted(pid_of(end.worker) for end in ends) == sorted(pids)
    assert {end.status for end in ends} == {0}
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_whoever_hurries_kills_them(launch: Launch, states: States) -> None:
    launcher = launch()
    start(launcher, states)
    (end,) = launcher.close(lambda: True)
    assert end.status in (0, -signal.SIGKILL)


def test_one_that_is_stopped_before_it_has_a_process_never_gets_to_work(launch: Launch, states: States) -> None:
    launcher = launch(**with_standby())
    launcher.start(SPEC)
    (worker,) = launcher.workers(MODEL)
    worker.request_stop()
    assert worker.process.pid is None
    assert ended(launcher).status in (0, -signal.SIGTERM)
    assert states() == {}


def test_each_worker_has_a_device_of_its_own(launch: Launch) -> None:
    launcher = launch(devices=["2", "5"])
    for _ in range(2):
        launcher.start(SPEC)
    # Before it has a title of its own, which takes the environment's place in memory.
    seen = [psutil.Process(pid_of(worker)).environ()["CUDA_VISIBLE_DEVICES"] for worker in launcher.workers(MODEL)]
    assert seen == ["2", "5"]
    launcher.workers(MODEL)[0].kill()
    ended(launcher)
    launcher.start(SPEC)
    assert [worker.devices for worker in launcher.workers(MODEL)] == [("5",), ("2",)]


def test_or_as_many_as_its_model_is_spread_over(launch: Launch) -> None:
    launcher = launch(devices=["0", "1", "2"])
    spread = SPEC.model_copy(update={"engine_args": {"tensor_parallel_size": 2}})
    launcher.start(spread)
    assert launcher.workers(MODEL)[0].devices == ("0", "1")
    with pytest.raises(OSError, match="it needs 2 GPUs, and 1 of 3 are free"):
        launcher.start(spread)


def standby_pid(launcher: LocalLauncher) -> int:
    assert launcher._standby.current is not None
    return launcher._standby.current.pid


def test_a_standby_says_when_it_is_ready(launch: Launch, states: States, said: list[str]) -> None:
    start(launch(**with_standby()), states)
    (sentence,) = said
    assert sentence.startswith("a standby is ready after ")


def test_workers_outlive_their_standby(launch: Launch, states: States, said: list[str]) -> None:
    launcher = launch(**with_standby())
    worker = start(launcher, states)
    os.kill(standby_pid(launcher), signal.SIGKILL)
    wait_until(lambda: launcher.reap() == [] and len(said) == 2)
    assert said[1] == "the standby was terminated by SIGKILL; workers start without it"
    assert worker.process.poll() is None
    # The next one comes from nothing.
    other = start(launcher, states)
    assert psutil.Process(pid_of(other)).cmdline() != []
    worker.request_stop()
    assert ended(launcher).status == 0


def test_one_that_the_standby_did_not_get_to_fork_is_started_without_it(
    launch: Launch, states: States, said: list[str]
) -> None:
    launcher = launch(**with_standby())
    os.kill(standby_pid(launcher), signal.SIGSTOP)
    launcher.start(SPEC)
    os.kill(standby_pid(launcher), signal.SIGKILL)
    (worker,) = launcher.workers(MODEL)

    def is_ready() -> bool:
        launcher.reap()
        return worker.name is not None and states().get(worker.name) is WorkerState.READY

    wait_until(is_ready, seconds=30)
    assert said == ["the standby was terminated by SIGKILL; workers start without it"]


def test_a_standby_that_hangs_is_ended_and_keeps_no_worker_from_starting(
    launch: Launch, states: States, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standby_client, "ANSWER_SECONDS", 0.3)
    launcher = launch(**with_standby())
    wait_until(lambda: launcher.reap() == [] and len(said) == 1)
    os.kill(standby_pid(launcher), signal.SIGSTOP)
    start(launcher, states)
    assert said[1] == "the standby was terminated by SIGKILL; workers start without it"


def test_another_standby_is_started_after_a_while(
    launch: Launch, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standby_client, "AGAIN_SECONDS", 0.2)
    launcher = launch(**with_standby())
    os.kill(standby_pid(launcher), signal.SIGKILL)
    wait_until(lambda: launcher.reap() == [] and len(said) == 2)
    assert said[1].startswith("a standby is ready after ")


PROGRAM = """
import os, sys, time
from shared.models import ModelSpec
from worker.autoscaler.launchers import LaunchOptions, LocalLauncher
options = LaunchOptions(os.environ, standby_models=frozenset(sys.argv[2:]), standby_engines=["lexical"] * len(sys.argv[2:]))
launcher = LocalLauncher(options, print)
launcher.start(ModelSpec(name=sys.argv[1], engine="lexical"))
while True:
    launcher.reap()
    time.sleep(0.05)
"""


@pytest.mark.parametrize("standby", [[], [MODEL]], ids=["plain", "standby"])
def test_whoever_kills_the_launcher_ends_its_workers_and_its_standby(
    environment: dict[str, str], states: States, tmp_path: Path, standby: list[str]
) -> None:
    with (tmp_path / "launcher.log").open("wb") as log:
        launcher = spawn([sys.executable, "-c", PROGRAM, MODEL, *standby], log, environment | {"PYTHONPATH": "."})
    wait_until(lambda: WorkerState.READY in states().values(), seconds=30)
    family = psutil.Process(launcher.pid).children(recursive=True)
    assert len(family) == 1 + len(standby)
    launcher.kill()
    launcher.wait()
    _, alive = psutil.wait_procs(family, timeout=15)
    assert alive == []
    assert states() == {}


def test_orphans_of_a_worker_are_reaped(launch: Launch, states: States) -> None:
    launcher = launch()
    orphan = spawn(["sh", "-c", "sleep 0 & exec sleep 60"], os.open(os.devnull, os.O_WRONLY), os.environ)
    os.kill(orphan.pid, signal.SIGKILL)
    time.sleep(0.2)
    launcher.reap()
    zombies = [child for child in psutil.Process().children() if child.status() == psutil.STATUS_ZOMBIE]
    assert zombies == []
    orphan.returncode = -signal.SIGKILL
