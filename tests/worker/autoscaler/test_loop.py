import signal
from collections.abc import Callable
from typing import Any

import pytest

from shared.keys import pool_keys
from shared.ledger.job_ledger import JobLedger
from shared.models import MAX_WORKERS, ModelSpec, PoolSettings
from shared.pools.heartbeats import WorkerState, summarize, worker_name
from shared.store.client import connect
from tests.shared.support import MODEL, dead_redis_url, make_submission, read_record
from tests.worker.autoscaler.support import Beats, FakeLauncher
from worker.autoscaler.launchers import Launcher, ObserveOnlyLauncher
from worker.autoscaler.loop import LAST_SECONDS, SILENT_SECONDS, Autoscaler
from worker.autoscaler.worker_process import WorkerProcess

DRAIN_SECONDS = 5.0
START_SECONDS = 60.0


@pytest.fixture
def launcher() -> FakeLauncher:
    return FakeLauncher()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def beats(redis_client: Any) -> Beats:
    return Beats(redis_client)


Make = Callable[..., Autoscaler]


@pytest.fixture
def make(redis_client: Any, launcher: FakeLauncher, said: list[str]) -> Make:
    """An autoscaler of one model, or of those that are named."""

    def make(
        *models: str,
        capacity: int = MAX_WORKERS,
        launcher: Launcher = launcher,
        client: Any = redis_client,
        **pool: Any,
    ) -> Autoscaler:
        settings = PoolSettings(**({"idle_seconds": 0, "cooldown_seconds": 0} | pool))
        return Autoscaler(
            client,
            [ModelSpec(name=name, engine="lexical", pool=settings) for name in models or (MODEL,)],
            launcher,
            said.append,
            capacity=capacity,
            start_seconds=START_SECONDS,
            drain_seconds=DRAIN_SECONDS,
        )

    return make


def is_stopping(worker: WorkerProcess) -> bool:
    return worker.stopping_since is not None


async def test_without_work_there_is_no_worker_and_nothing_to_say(
    make: Make, launcher: FakeLauncher, said: list[str]
) -> None:
    autoscaler = make()
    for _ in range(3):
        autoscaler.round()
    assert launcher.started == 0
    assert said == []


async def test_a_request_starts_one_worker_in_the_next_round(
    make: Make, launcher: FakeLauncher, ledger: JobLedger, said: list[str]
) -> None:
    autoscaler = make()
    await ledger.submit(make_submission())
    # It has said nothing yet, and counts all the same.
    for _ in range(3):
        autoscaler.round()
    assert launcher.started == 1
    assert said == ["1 request waits: starting a worker"]


async def test_it_says_once_when_the_worker_is_ready(
    make: Make, launcher: FakeLauncher, ledger: JobLedger, beats: Beats, said: list[str]
) -> None:
    autoscaler = make()
    worker = await starting(autoscaler, launcher, ledger)
    beats.say(worker, WorkerState.STARTING)
    autoscaler.round()
    worker.started_at -= 9.3
    beats.say(worker, WorkerState.READY)
    for _ in range(3):
        autoscaler.round()
    assert said[1:] == ["ready after 9.3 s"]
    assert launcher.started == 1


async def test_after_some_quiet_the_worker_is_asked_to_stop(
    make: Make, launcher: FakeLauncher, ledger: JobLedger, beats: Beats, said: list[str]
) -> None:
    autoscaler = make()
    worker = await starting(autoscaler, launcher, ledger)
    beats.say(worker, WorkerState.READY)
    autoscaler.round()
    assert not is_stopping(worker)

    await ledger.cancel(await read_record(ledger))
    for _ in range(3):
        autoscaler.round()
    assert is_stopping(worker)
    launcher.end(worker, 0)
    autoscaler.round()
    assert said[2:] == ["idle for 0 s: stopping the worker", "the worker has stopped"]


async def starting(autoscaler: Autoscaler, launcher: FakeLauncher, ledger: JobLedger) -> WorkerProcess:
    """A job has come, and a worker was started for it."""
    await ledger.submit(make_submission())
    autoscaler.round()
    (worker,) = launcher.running
    return worker


async def draining(autoscaler: Autoscaler, launcher: FakeLauncher, ledger: JobLedger, beats: Beats) -> None:
    """A pool whose only worker has been told to stop."""
    await ledger.submit(make_submission("first"))
    autoscaler.round()
    beats.say(launcher.running[0], WorkerState.READY)
    await ledger.cancel(await read_record(ledger, "first"))
    autoscaler.round()
    assert is_stopping(launcher.running[0])


async def test_a_request_that_comes_while_the_last_worker_drains_gets_another_one_at_once(
    make: Make, launcher: FakeLauncher, ledger: JobLedger, beats: Beats
) -> None:
    autoscaler = make()
    await draining(autoscaler, launcher, ledger, beats)
    await ledger.submit(make_submission("second"))
    autoscaler.round()
    assert [is_stopping(worker) for worker in launcher.running] == [True, False]


async def test_on_a_full_machine_it_gets_the_place_as_soon_as_that_is_free(
    make: Make, launcher: FakeLauncher, ledger: JobLedger, beats: Beats, said: list[str]
) -> None:
    autoscaler = make(capacity=1)
    await draining(autoscaler, launcher, ledger, beats)
    await ledger.submit(make_submission("second"))
    said.clear()
    for _ in range(3):
        autoscaler.round()
    assert launcher.started == 1
    assert said == ["2 interactive pairs wait: there is no room for another worker"]

    launcher.end(launcher.running[0], 0)
    autoscaler.round()
    assert launcher.started == 2


def allow_one(autoscaler: Autoscaler) -> None:
    """From now on the pool is to have one worker."""
    pool = autoscaler._pools[MODEL]
    pool.spec = pool.spec.model_copy(update={"pool": PoolSettings(min=1, max=1, idle_seconds=0, cooldown_seconds=0)})


@pytest.mark.parametrize("busy", [0, 1])
async def test_of_two_workers_the_one_without_work_is_stopped(
    make: Make, launcher: FakeLauncher, beats: Beats, busy: int
) -> None:
    autoscaler = make(min=2, max=2)
    autoscaler.round()
    for number, worker in enumerate(launcher.running):
        beats.say(worker, WorkerState.READY, held=int(number == busy))
    autoscaler.round()
    allow_one(autoscaler)
    autoscaler.round()
    assert [is_stopping(worker) for worker in launcher.running] == [number != busy for number in range(2)]


@pytest.mark.parametrize("ready", [0, 1])
async def test_one_that_is_not_ready_yet_is_stopped_before_one_that_is(
    make: Make, launcher: FakeLauncher, beats: Beats, ready: int
) -> None:
    autoscaler = make(min=2, max=2)
    autoscaler.round()
    beats.say(launcher.running[ready], WorkerState.READY, held=1)
    allow_one(autoscaler)
    autoscaler.round()
    assert [is_stopping(worker) for worker in launcher.running] == [number != ready for number in range(2)]


async def test_a_worker_that_dies_before_it_was_ready_has_failed_to_start(
    make: Make, launcher: FakeLauncher, ledger: JobLedger, beats: Beats, redis_client: Any, said: list[str]
) -> None:
    autoscaler = make()
    worker = await starting(autoscaler, launcher, ledger)
    beats.say(worker, WorkerState.STARTING)
    launcher.end(worker, -signal.SIGKILL, "loading", "RuntimeError: no kernel image is available", "")
    autoscaler.round()

    reason = "the worker was terminated by SIGKILL before it was ready: RuntimeError: no kernel image is available"
    health = summarize(redis_client.hgetall(pool_keys.workers(MODEL)), beats.said()[worker.name or ""]["at"])
    assert health.down
    assert health.failure == reason
    assert said[1] == f"the worker could not start: {reason}"


async def test_after_a_failed_start_it_waits_and_then_tries_again(
    make: Make, launcher: FakeLauncher, ledger: JobLedger, beats: Beats, said: list[str]
) -> None:
    autoscaler = make()
    await ledger.submit(make_submission())
    for failures in range(1, 4):
        autoscaler.round()
        assert launcher.started == failures
        launcher.end(launcher.running[0], 1, "it broke")
        for _ in range(3):
            autoscaler.round()
        assert launcher.started == failures
        assert "next try in" in said[-1]
        beats.age(2 ** (failures - 1))
    assert len([sentence for sentence in said if "next try in" in sentence]) == 3


async def test_the_reason_that_a_worker_gives_itself_is_kept(
    make: Make, launcher: FakeLauncher, ledger: JobLedger, beats: Beats, said: list[str]
) -> None:
    autoscaler = make()
    worker = await starting(autoscaler, launcher, ledger)
    beats.say(worker, WorkerState.FAILED, "model 'x' has 3 labels")
    launcher.end(worker, 1, "something else")
    autoscaler.round()
    assert beats.said()[worker.name or ""]["reason"] == "model 'x' has 3 labels"
    assert said[1] == "the worker could not start: model 'x' has 3 labels"


async def test_a_worker_that_dies_later_is_replaced_at_once(
    make: Make, launcher: FakeLauncher, ledger: JobLedger, beats: Beats, said: list[str]
) -> None:
    autoscaler = make()
    worker = await starting(autoscaler, launcher, ledger)
    beats.say(worker, WorkerState.READY)
    autoscaler.round()
    launcher.end(worker, -signal.SIGKILL)
    autoscaler.round()
    assert launcher.started == 2
    assert beats.said() == {}
    assert said[2:] == ["the worker was terminated by SIGKILL", "1 request waits: starting a worker"]


async def test_also_one_that_was_ready_for_less_than_a_round(
    make: Make, launcher: FakeLauncher, ledger: JobLedger, beats: Beats
) -> None:
    autoscaler = make()
    worker = await starting(autoscaler, launcher, ledger)
    beats.say(worker, WorkerState.READY)
    launcher.end(worker, 3)
    autoscaler.round()
    assert launcher.started == 2


async def test_one_that_was_told_to_stop_and_is_killed_has_not_failed(
    make: Make, launcher: FakeLauncher, ledger: JobLedger, beats: Beats
) -> None:
    autoscaler = make()
    await draining(autoscaler, launcher, ledger, beats)
    launcher.end(launcher.running[0], -signal.SIGKILL)
    autoscaler.round()
    assert beats.said() == {}


async def test_a_start_that_takes_too_long_is_broken_off_and_has_failed(
    make: Make, launcher: FakeLauncher, ledger: JobLedger, beats: Beats
) -> None:
    autoscaler = make()
    worker = await starting(autoscaler, launcher, ledger)
    worker.started_at -= START_SECONDS + 1
    beats.say(worker, WorkerState.STARTING)
    autoscaler.round()
    assert is_stopping(worker)
    launcher.end(worker, -signal.SIGKILL)
    autoscaler.round()
    assert beats.said()[worker.name or ""]["reason"] == "not ready within 60 s"


async def test_a_worker_that_does_not_end_is_killed(
    make: Make, launcher: FakeLauncher, ledger: JobLedger, beats: Beats, monkeypatch: pytest.MonkeyPatch
) -> None:
    autoscaler = make()
    await draining(autoscaler, launcher, ledger, beats)
    (worker,) = launcher.running
    killed: list[int] = []
    monkeypatch.setattr("os.killpg", lambda pid, number: killed.append(number))
    autoscaler.round()
    assert killed == []
    assert worker.stopping_since is not None
    worker.stopping_since -= DRAIN_SECONDS + LAST_SECONDS
    autoscaler.round()
    assert killed == [signal.SIGKILL]


async def test_a_worker_that_falls_silent_is_killed_and_replaced(
    make: Make, launcher: FakeLauncher, ledger: JobLedger, beats: Beats, said: list[str]
) -> None:
    autoscaler = make()
    worker = await starting(autoscaler, launcher, ledger)
    beats.say(worker, WorkerState.READY)
    autoscaler.round()
    beats.age(SILENT_SECONDS)
    autoscaler.round()
    assert not is_stopping(worker)
    worker.heard_at -= SILENT_SECONDS
    autoscaler.round()
    assert is_stopping(worker)
    assert launcher.started == 2
    launcher.end(worker, -signal.SIGKILL)
    autoscaler.round()
    assert said[2:] == [
        "the worker has been silent for 20 s: ending it",
        "1 request waits: starting a worker",
        "the worker was terminated by SIGKILL",
    ]


async def test_a_process_that_cannot_be_started_is_a_failed_start(
    make: Make, launcher: FakeLauncher, ledger: JobLedger, beats: Beats
) -> None:
    autoscaler = make()
    launcher.error = OSError(12, "Cannot allocate memory")
    await ledger.submit(make_submission())
    autoscaler.round()
    launcher.error = None
    autoscaler.round()
    assert launcher.started == 0
    (beat,) = beats.said().values()
    assert "Cannot allocate memory" in beat["reason"]


async def test_while_redis_is_away_the_workers_stay_as_they_are(
    make: Make, launcher: FakeLauncher, said: list[str]
) -> None:
    autoscaler = make(client=connect(dead_redis_url()), min=1)
    for _ in range(3):
        autoscaler.round()
    assert launcher.started == 0
    (sentence,) = said
    assert sentence.startswith("Redis cannot be reached, the workers stay as they are")


async def test_nobody_was_silent_while_redis_was_away(
    make: Make, launcher: FakeLauncher, ledger: JobLedger, beats: Beats, monkeypatch: pytest.MonkeyPatch
) -> None:
    autoscaler = make()
    worker = await starting(autoscaler, launcher, ledger)
    beats.say(worker, WorkerState.READY)
    autoscaler.round()
    with monkeypatch.context() as away:
        away.setattr(autoscaler, "_client", connect(dead_redis_url()))
        autoscaler.round()
    beats.age(SILENT_SECONDS)
    worker.heard_at -= SILENT_SECONDS
    autoscaler.round()
    assert not is_stopping(worker)


async def test_nobody_was_silent_while_redis_took_nothing(
    make: Make, launcher: FakeLauncher, ledger: JobLedger, beats: Beats, redis_client: Any
) -> None:
    autoscaler = make()
    await ledger.submit(make_submission())
    autoscaler.round()
    (worker,) = launcher.running
    beats.say(worker, WorkerState.READY)
    autoscaler.round()
    beats.age(SILENT_SECONDS)
    redis_client.replicaof("127.0.0.1", 1)
    try:
        worker.heard_at -= SILENT_SECONDS
        autoscaler.round()
    finally:
        redis_client.replicaof("NO", "ONE")
    autoscaler.round()
    assert not is_stopping(worker)


async def test_what_this_hosts_workers_said_before_it_began_is_forgotten(
    make: Make, launcher: FakeLauncher, ledger: JobLedger, beats: Beats
) -> None:
    beats.say(worker_name(12345), WorkerState.READY)
    beats.say(worker_name(12346), WorkerState.FAILED, "it broke")
    beats.age(3)
    await ledger.submit(make_submission())
    make().round()
    assert list(beats.said()) == [worker_name(12346)]
    assert launcher.started == 1


async def test_workers_of_others_count(make: Make, launcher: FakeLauncher, ledger: JobLedger, beats: Beats) -> None:
    beats.say("elsewhere-1", WorkerState.READY)
    autoscaler = make()
    await ledger.submit(make_submission())
    autoscaler.round()
    assert launcher.started == 0


async def test_each_model_has_a_pool_of_its_own(
    make: Make, launcher: FakeLauncher, ledger: JobLedger, said: list[str]
) -> None:
    autoscaler = make(MODEL, "other")
    await ledger.submit(make_submission())
    autoscaler.round()
    assert [worker.model for worker in launcher.running] == [MODEL]
    assert said == [f"{MODEL}: 1 request waits: starting a worker"]


async def test_an_idle_pool_gives_way_to_one_with_work(
    make: Make, launcher: FakeLauncher, ledger: JobLedger, beats: Beats, said: list[str]
) -> None:
    autoscaler = make(MODEL, "idle", capacity=1, idle_seconds=300)
    launcher.start(ModelSpec(name="idle", engine="lexical"))
    (idle,) = launcher.running
    beats.say(idle, WorkerState.READY)
    autoscaler.round()
    await ledger.submit(make_submission())
    for _ in range(3):
        autoscaler.round()
    assert is_stopping(idle)
    assert launcher.started == 1
    assert "idle: another model needs the place: stopping the worker" in said

    launcher.end(idle, 0)
    autoscaler.round()
    assert [worker.model for worker in launcher.running] == [MODEL]


async def test_who_only_watches_says_what_would_be_done_and_does_nothing(
    make: Make, ledger: JobLedger, beats: Beats, said: list[str]
) -> None:
    autoscaler = make(launcher=ObserveOnlyLauncher())
    await ledger.submit(make_submission())
    for _ in range(3):
        autoscaler.round()
    beats.say("pod-1", WorkerState.READY)
    autoscaler.round()
    await ledger.cancel(await read_record(ledger))
    for _ in range(3):
        autoscaler.round()
    assert said == ["1 request waits: would start a worker", "idle for 0 s: would stop the worker"]


async def test_in_the_end_every_worker_is_stopped(make: Make, launcher: FakeLauncher, beats: Beats) -> None:
    autoscaler = make(min=2, max=2)
    autoscaler.round()
    for worker in launcher.running:
        beats.say(worker, WorkerState.READY)
    autoscaler.close()
    assert launcher.running == []
    assert beats.said() == {}
