"""LocalLauncher with real processes: workers with the lexical engine, and a standby."""

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
def published_ends() -> list[str]:
    return []


Launch = Callable[..., LocalLauncher]


@pytest.fixture
def launch(environment: dict[str, str], published_ends: list[str]) -> Iterator[Launch]:
    launchers: list[LocalLauncher] = []

    def launch(**changes: Any) -> LocalLauncher:
        launchers.append(
            LocalLauncher(LaunchOptions(**({"environment": environment} | changes)), published_ends.append)
        )
        return launchers[-1]

    yield launch
    for launcher in launchers:
        launcher.close(lambda: False)


@pytest.fixture
def states(redis_client: Any) -> Callable[[], dict[str, WorkerState]]:
    return lambda: {beat.worker: beat.state for beat in read_heartbeats(redis_client.hgetall(pool_keys.workers(MODEL)))}


States = Callable[[], dict[str, WorkerState]]


def start(launcher: LocalLauncher, states: States) -> WorkerProcess:
    """Start a worker and wait until it is ready."""
    launcher.start(SPEC)
    worker = launcher.workers(MODEL)[-1]

    def is_ready() -> bool:
        assert launcher.reap() == []
        return worker.name is not None and states().get(worker.name) is WorkerState.READY

    wait_until(is_ready, seconds=30)
    return worker


def wait_for_exit(launcher: LocalLauncher) -> WorkerExit:
    exits: list[WorkerExit] = []

    def has_ended() -> bool:
        exits.extend(launcher.reap())
        return bool(exits)

    wait_until(has_ended, seconds=20)
    (end,) = exits
    return end


def pid_of(worker: WorkerProcess) -> int:
    assert worker.process.pid is not None
    return worker.process.pid


def standby_options() -> dict[str, Any]:
    return {"standby_models": frozenset({MODEL}), "standby_engines": ["lexical"]}


@pytest.fixture(params=["plain", "standby"])
def launcher(request: pytest.FixtureRequest, launch: Launch) -> LocalLauncher:
    return launch(**(standby_options() if request.param == "standby" else {}))


def test_a_worker_starts_and_stops_and_its_status_is_returned(launcher: LocalLauncher, states: States) -> None:
    worker = start(launcher, states)
    worker.request_stop()
    end = wait_for_exit(launcher)
    assert (end.worker, end.status) == (worker, 0)
    assert launcher.workers(MODEL) == []
    assert states() == {}


def test_the_signal_that_killed_a_worker_is_returned(launcher: LocalLauncher, states: States) -> None:
    worker = start(launcher, states)
    os.kill(pid_of(worker), signal.SIGKILL)
    assert wait_for_exit(launcher).status == -signal.SIGKILL


def test_a_worker_is_a_child_of_the_launcher_in_a_separate_session(launcher: LocalLauncher, states: States) -> None:
    pid = pid_of(start(launcher, states))
    assert psutil.Process(pid).ppid() == os.getpid()
    assert os.getsid(pid) == pid


def test_the_output_of_a_worker_is_forwarded(
    launcher: LocalLauncher, states: States, capfd: pytest.CaptureFixture[str]
) -> None:
    worker = start(launcher, states)
    launcher.reap()
    assert f"worker[{worker.process.pid}] " in capfd.readouterr().err


def test_close_stops_all_workers(launch: Launch, states: States) -> None:
    launcher = launch(**standby_options())
    pids = [pid_of(start(launcher, states)) for _ in range(2)]
    exits = launcher.close(lambda: False)
    assert sorted(pid_of(end.worker) for end in exits) == sorted(pids)
    assert {end.status for end in exits} == {0}
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_forced_close_kills_the_workers(launch: Launch, states: States) -> None:
    launcher = launch()
    start(launcher, states)
    (end,) = launcher.close(lambda: True)
    assert end.status in (0, -signal.SIGKILL)


def test_a_worker_that_is_stopped_before_it_has_a_process_never_becomes_ready(launch: Launch, states: States) -> None:
    launcher = launch(**standby_options())
    launcher.start(SPEC)
    (worker,) = launcher.workers(MODEL)
    worker.request_stop()
    assert worker.process.pid is None
    assert wait_for_exit(launcher).status in (0, -signal.SIGTERM)
    assert states() == {}


def test_each_worker_has_a_separate_device(launch: Launch) -> None:
    launcher = launch(devices=["2", "5"])
    for _ in range(2):
        launcher.start(SPEC)
    # Read at once: setting the process title overwrites the environment in memory.
    seen = [psutil.Process(pid_of(worker)).environ()["CUDA_VISIBLE_DEVICES"] for worker in launcher.workers(MODEL)]
    assert seen == ["2", "5"]
    launcher.workers(MODEL)[0].kill()
    wait_for_exit(launcher)
    launcher.start(SPEC)
    assert [worker.devices for worker in launcher.workers(MODEL)] == [("5",), ("2",)]


def test_a_worker_gets_as_many_devices_as_its_model_spans(launch: Launch) -> None:
    launcher = launch(devices=["0", "1", "2"])
    spread = SPEC.model_copy(update={"engine_args": {"tensor_parallel_size": 2}})
    launcher.start(spread)
    assert launcher.workers(MODEL)[0].devices == ("0", "1")
    with pytest.raises(OSError, match="it needs 2 GPUs, and 1 of 3 are free"):
        launcher.start(spread)


def standby_pid(launcher: LocalLauncher) -> int:
    assert launcher._standby.current is not None
    return launcher._standby.current.pid


def test_a_ready_standby_is_announced(launch: Launch, states: States, published_ends: list[str]) -> None:
    start(launch(**standby_options()), states)
    (sentence,) = published_ends
    assert sentence.startswith("a standby is ready after ")


def test_workers_outlive_their_standby(launch: Launch, states: States, published_ends: list[str]) -> None:
    launcher = launch(**standby_options())
    worker = start(launcher, states)
    os.kill(standby_pid(launcher), signal.SIGKILL)
    wait_until(lambda: launcher.reap() == [] and len(published_ends) == 2)
    assert published_ends[1] == "the standby was terminated by SIGKILL; workers start without it"
    assert worker.process.poll() is None
    # Started without a standby: a forked worker would have no command line of its own.
    other = start(launcher, states)
    assert psutil.Process(pid_of(other)).cmdline() != []
    worker.request_stop()
    assert wait_for_exit(launcher).status == 0


def test_a_worker_that_the_standby_did_not_fork_is_started_without_it(
    launch: Launch, states: States, published_ends: list[str]
) -> None:
    launcher = launch(**standby_options())
    os.kill(standby_pid(launcher), signal.SIGSTOP)
    launcher.start(SPEC)
    os.kill(standby_pid(launcher), signal.SIGKILL)
    (worker,) = launcher.workers(MODEL)

    def is_ready() -> bool:
        launcher.reap()
        return worker.name is not None and states().get(worker.name) is WorkerState.READY

    wait_until(is_ready, seconds=30)
    assert published_ends == ["the standby was terminated by SIGKILL; workers start without it"]


def test_a_hanging_standby_is_killed_and_the_worker_starts_without_it(
    launch: Launch, states: States, published_ends: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standby_client, "FORK_TIMEOUT_SECONDS", 0.3)
    launcher = launch(**standby_options())
    wait_until(lambda: launcher.reap() == [] and len(published_ends) == 1)
    os.kill(standby_pid(launcher), signal.SIGSTOP)
    start(launcher, states)
    assert published_ends[1] == "the standby was terminated by SIGKILL; workers start without it"


def test_another_standby_is_started_after_a_pause(
    launch: Launch, published_ends: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standby_client, "RESTART_SECONDS", 0.2)
    launcher = launch(**standby_options())
    os.kill(standby_pid(launcher), signal.SIGKILL)
    wait_until(lambda: launcher.reap() == [] and len(published_ends) == 2)
    assert published_ends[1].startswith("a standby is ready after ")


PROGRAM = """
import os, sys, time

from shared.models import ModelSpec
from worker.autoscaler.launchers import LaunchOptions, LocalLauncher
model, *standby = sys.argv[1:]
engines = ["lexical"] * len(standby)
options = LaunchOptions(os.environ, standby_models=frozenset(standby), standby_engines=engines)
launcher = LocalLauncher(options, print)
launcher.start(ModelSpec(name=model, engine="lexical"))
while True:
    launcher.reap()
    time.sleep(0.05)
"""


@pytest.mark.parametrize("standby", [[], [MODEL]], ids=["plain", "standby"])
def test_killing_the_launcher_ends_its_workers_and_its_standby(
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
