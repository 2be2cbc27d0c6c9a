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
from tests.worker.autoscaler.support import FakeLauncher, Heartbeats
from worker.autoscaler.launchers import Launcher, ObserveOnlyLauncher
from worker.autoscaler.loop import EXIT_GRACE_SECONDS, HEARTBEAT_TIMEOUT_SECONDS, Autoscaler
from worker.autoscaler.metrics import AutoscalerMetrics
from worker.autoscaler.worker_process import WorkerProcess

DRAIN_SECONDS = 5.0
START_SECONDS = 60.0


@pytest.fixture
def launcher() -> FakeLauncher:
    return FakeLauncher()


@pytest.fixture
def published_ends() -> list[str]:
    return []


@pytest.fixture
def heartbeats(redis_client: Any) -> Heartbeats:
    return Heartbeats(redis_client)


Make = Callable[..., Autoscaler]


@pytest.fixture
def metrics() -> AutoscalerMetrics:
    return AutoscalerMetrics()


@pytest.fixture
def make(redis_client: Any, launcher: FakeLauncher, published_ends: list[str], metrics: AutoscalerMetrics) -> Make:
    """Make an autoscaler of the test model, or of the given models."""

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
            published_ends.append,
            capacity=capacity,
            start_seconds=START_SECONDS,
            drain_seconds=DRAIN_SECONDS,
            metrics=metrics,
        )

    return make


def is_stopping(worker: WorkerProcess) -> bool:
    return worker.stopping_since is not None


async def test_without_work_no_worker_starts_and_nothing_is_announced(
    make: Make, launcher: FakeLauncher, published_ends: list[str]
) -> None:
    autoscaler = make()
    for _ in range(3):
        autoscaler.round()
    assert launcher.started == 0
    assert published_ends == []


async def test_a_request_starts_one_worker_in_the_next_round(
    make: Make, launcher: FakeLauncher, ledger: JobLedger, published_ends: list[str]
) -> None:
    autoscaler = make()
    await ledger.submit(make_submission())
    # The worker counts before its first heartbeat.
    for _ in range(3):
        autoscaler.round()
    assert launcher.started == 1
    assert published_ends == ["1 request waits: starting a worker"]


async def test_a_ready_worker_is_announced_once(
    make: Make, launcher: FakeLauncher, ledger: JobLedger, heartbeats: Heartbeats, published_ends: list[str]
) -> None:
    autoscaler = make()
    worker = await starting(autoscaler, launcher, ledger)
    heartbeats.write(worker, WorkerState.STARTING)
    autoscaler.round()
    worker.started_at -= 9.3
    heartbeats.write(worker, WorkerState.READY)
    for _ in range(3):
        autoscaler.round()
    assert published_ends[1:] == ["ready after 9.3 s"]
    assert launcher.started == 1


async def test_an_idle_worker_is_stopped(
    make: Make, launcher: FakeLauncher, ledger: JobLedger, heartbeats: Heartbeats, published_ends: list[str]
) -> None:
    autoscaler = make()
    worker = await starting(autoscaler, launcher, ledger)
    heartbeats.write(worker, WorkerState.READY)
    autoscaler.round()
    assert not is_stopping(worker)

    await ledger.cancel(await read_record(ledger))
    for _ in range(3):
        autoscaler.round()
    assert is_stopping(worker)
    launcher.end(worker, 0)
    autoscaler.round()
    assert published_ends[2:] == ["idle for 0 s: stopping the worker", "the worker has stopped"]


async def starting(autoscaler: Autoscaler, launcher: FakeLauncher, ledger: JobLedger) -> WorkerProcess:
    """Submit a job, and return the worker that was started for it."""
    await ledger.submit(make_submission())
    autoscaler.round()
    (worker,) = launcher.running
    return worker


async def draining(autoscaler: Autoscaler, launcher: FakeLauncher, ledger: JobLedger, heartbeats: Heartbeats) -> None:
    """Let the only worker of the pool drain."""
    await ledger.submit(make_submission("first"))
    autoscaler.round()
    heartbeats.write(launcher.running[0], WorkerState.READY)
    await ledger.cancel(await read_record(ledger, "first"))
    autoscaler.round()
    assert is_stopping(launcher.running[0])


async def test_a_request_while_the_last_worker_drains_starts_another_worker(
    make: Make, launcher: FakeLauncher, ledger: JobLedger, heartbeats: Heartbeats
) -> None:
    autoscaler = make()
    await draining(autoscaler, launcher, ledger, heartbeats)
    await ledger.submit(make_submission("second"))
    autoscaler.round()
    assert [is_stopping(worker) for worker in launcher.running] == [True, False]


async def test_on_a_full_machine_the_new_worker_starts_when_the_draining_one_has_ended(
    make: Make, launcher: FakeLauncher, ledger: JobLedger, heartbeats: Heartbeats, published_ends: list[str]
) -> None:
    autoscaler = make(capacity=1)
    await draining(autoscaler, launcher, ledger, heartbeats)
    await ledger.submit(make_submission("second"))
    published_ends.clear()
    for _ in range(3):
        autoscaler.round()
    assert launcher.started == 1
    assert published_ends == ["2 interactive pairs wait: no worker slot is free"]

    launcher.end(launcher.running[0], 0)
    autoscaler.round()
    assert launcher.started == 2


def allow_one(autoscaler: Autoscaler) -> None:
    """Limit the pool to one worker from now on."""
    pool = autoscaler._pools[MODEL]
    pool.spec = pool.spec.model_copy(update={"pool": PoolSettings(min=1, max=1, idle_seconds=0, cooldown_seconds=0)})


@pytest.mark.parametrize("busy", [0, 1])
async def test_an_idle_worker_is_stopped_before_a_busy_one(
    make: Make, launcher: FakeLauncher, heartbeats: Heartbeats, busy: int
) -> None:
    autoscaler = make(min=2, max=2)
    autoscaler.round()
    for number, worker in enumerate(launcher.running):
        heartbeats.write(worker, WorkerState.READY, held=int(number == busy))
    autoscaler.round()
    allow_one(autoscaler)
    autoscaler.round()
    assert [is_stopping(worker) for worker in launcher.running] == [number != busy for number in range(2)]


@pytest.mark.parametrize("ready", [0, 1])
async def test_a_starting_worker_is_stopped_before_a_ready_one(
    make: Make, launcher: FakeLauncher, heartbeats: Heartbeats, ready: int
) -> None:
    autoscaler = make(min=2, max=2)
    autoscaler.round()
    heartbeats.write(launcher.running[ready], WorkerState.READY, held=1)
    allow_one(autoscaler)
    autoscaler.round()
    assert [is_stopping(worker) for worker in launcher.running] == [number != ready for number in range(2)]


async def test_a_worker_that_dies_before_it_was_ready_counts_as_a_failed_start(
    make: Make,
    launcher: FakeLauncher,
    ledger: JobLedger,
    heartbeats: Heartbeats,
    redis_client: Any,
    published_ends: list[str],
) -> None:
    autoscaler = make()
    worker = await starting(autoscaler, launcher, ledger)
    heartbeats.write(worker, WorkerState.STARTING)
    launcher.end(worker, -signal.SIGKILL, "loading", "RuntimeError: no kernel image is available", "")
    autoscaler.round()

    reason = "the worker was terminated by SIGKILL before it was ready: RuntimeError: no kernel image is available"
    health = summarize(redis_client.hgetall(pool_keys.workers(MODEL)), heartbeats.read()[worker.name or ""]["at"])
    assert health.down
    assert health.failure == reason
    assert published_ends[1] == f"the worker could not start: {reason}"


async def test_starts_exits_and_decisions_are_counted(
    make: Make, launcher: FakeLauncher, ledger: JobLedger, heartbeats: Heartbeats, metrics: AutoscalerMetrics
) -> None:
    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(f"rerankq_autoscaler_{name}", {"model": MODEL, **labels})

    autoscaler = make()
    worker = await starting(autoscaler, launcher, ledger)
    heartbeats.write(worker, WorkerState.STARTING)
    autoscaler.round()
    assert (value("desired_workers"), value("slots"), value("workers", state="starting")) == (1, 1, 1)
    launcher.end(worker, 1, "no device")
    autoscaler.round()
    assert (value("starts_total"), value("exits_total", how="failed")) == (1, 1)
    assert (metrics.registry.get_sample_value("rerankq_autoscaler_last_round_timestamp_seconds") or 0) > 1e9


async def test_after_a_failed_start_it_waits_and_then_tries_again(
    make: Make, launcher: FakeLauncher, ledger: JobLedger, heartbeats: Heartbeats, published_ends: list[str]
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
        assert "next try in" in published_ends[-1]
        heartbeats.age(2 ** (failures - 1))
    assert len([sentence for sentence in published_ends if "next try in" in sentence]) == 3


async def test_the_reason_that_a_worker_gives_itself_is_kept(
    make: Make, launcher: FakeLauncher, ledger: JobLedger, heartbeats: Heartbeats, published_ends: list[str]
) -> None:
    autoscaler = make()
    worker = await starting(autoscaler, launcher, ledger)
    heartbeats.write(worker, WorkerState.FAILED, "model 'x' has 3 labels")
    launcher.end(worker, 1, "something else")
    autoscaler.round()
    assert heartbeats.read()[worker.name or ""]["reason"] == "model 'x' has 3 labels"
    assert published_ends[1] == "the worker could not start: model 'x' has 3 labels"


async def test_a_worker_that_dies_later_is_replaced_at_once(
    make: Make, launcher: FakeLauncher, ledger: JobLedger, heartbeats: Heartbeats, published_ends: list[str]
) -> None:
    autoscaler = make()
    worker = await starting(autoscaler, launcher, ledger)
    heartbeats.write(worker, WorkerState.READY)
    autoscaler.round()
    launcher.end(worker, -signal.SIGKILL)
    autoscaler.round()
    assert launcher.started == 2
    assert heartbeats.read() == {}
    assert published_ends[2:] == ["the worker was terminated by SIGKILL", "1 request waits: starting a worker"]


async def test_a_worker_that_was_ready_for_less_than_a_round_is_replaced_at_once(
    make: Make, launcher: FakeLauncher, ledger: JobLedger, heartbeats: Heartbeats
) -> None:
    autoscaler = make()
    worker = await starting(autoscaler, launcher, ledger)
    heartbeats.write(worker, WorkerState.READY)
    launcher.end(worker, 3)
    autoscaler.round()
    assert launcher.started == 2


async def test_a_draining_worker_that_is_killed_is_no_failed_start(
    make: Make, launcher: FakeLauncher, ledger: JobLedger, heartbeats: Heartbeats
) -> None:
    autoscaler = make()
    await draining(autoscaler, launcher, ledger, heartbeats)
    launcher.end(launcher.running[0], -signal.SIGKILL)
    autoscaler.round()
    assert heartbeats.read() == {}


async def test_a_start_that_takes_too_long_is_aborted_and_counts_as_failed(
    make: Make, launcher: FakeLauncher, ledger: JobLedger, heartbeats: Heartbeats
) -> None:
    autoscaler = make()
    worker = await starting(autoscaler, launcher, ledger)
    worker.started_at -= START_SECONDS + 1
    heartbeats.write(worker, WorkerState.STARTING)
    autoscaler.round()
    assert is_stopping(worker)
    launcher.end(worker, -signal.SIGKILL)
    autoscaler.round()
    assert heartbeats.read()[worker.name or ""]["reason"] == "not ready within 60 s"


async def test_a_worker_that_does_not_exit_after_its_drain_time_is_killed(
    make: Make, launcher: FakeLauncher, ledger: JobLedger, heartbeats: Heartbeats, monkeypatch: pytest.MonkeyPatch
) -> None:
    autoscaler = make()
    await draining(autoscaler, launcher, ledger, heartbeats)
    (worker,) = launcher.running
    killed: list[int] = []
    monkeypatch.setattr("os.killpg", lambda pid, number: killed.append(number))
    autoscaler.round()
    assert killed == []
    assert worker.stopping_since is not None
    worker.stopping_since -= DRAIN_SECONDS + EXIT_GRACE_SECONDS
    autoscaler.round()
    assert killed == [signal.SIGKILL]


async def test_a_worker_without_heartbeats_is_killed_and_replaced(
    make: Make, launcher: FakeLauncher, ledger: JobLedger, heartbeats: Heartbeats, published_ends: list[str]
) -> None:
    autoscaler = make()
    worker = await starting(autoscaler, launcher, ledger)
    heartbeats.write(worker, WorkerState.READY)
    autoscaler.round()
    heartbeats.age(HEARTBEAT_TIMEOUT_SECONDS)
    autoscaler.round()
    assert not is_stopping(worker)
    worker.last_heartbeat_at -= HEARTBEAT_TIMEOUT_SECONDS
    autoscaler.round()
    assert is_stopping(worker)
    assert launcher.started == 2
    launcher.end(worker, -signal.SIGKILL)
    autoscaler.round()
    assert published_ends[2:] == [
        "no heartbeat for 20 s: killing the worker",
        "1 request waits: starting a worker",
        "the worker was terminated by SIGKILL",
    ]


async def test_a_process_that_cannot_be_started_is_a_failed_start(
    make: Make, launcher: FakeLauncher, ledger: JobLedger, heartbeats: Heartbeats
) -> None:
    autoscaler = make()
    launcher.error = OSError(12, "Cannot allocate memory")
    await ledger.submit(make_submission())
    autoscaler.round()
    launcher.error = None
    autoscaler.round()
    assert launcher.started == 0
    (beat,) = heartbeats.read().values()
    assert "Cannot allocate memory" in beat["reason"]


async def test_while_redis_is_unreachable_no_worker_is_started_or_stopped(
    make: Make, launcher: FakeLauncher, published_ends: list[str]
) -> None:
    autoscaler = make(client=connect(dead_redis_url()), min=1)
    for _ in range(3):
        autoscaler.round()
    assert launcher.started == 0
    (sentence,) = published_ends
    assert sentence.startswith("Redis is unreachable, no worker is started or stopped")


async def test_the_heartbeat_timeout_restarts_after_redis_was_unreachable(
    make: Make, launcher: FakeLauncher, ledger: JobLedger, heartbeats: Heartbeats, monkeypatch: pytest.MonkeyPatch
) -> None:
    autoscaler = make()
    worker = await starting(autoscaler, launcher, ledger)
    heartbeats.write(worker, WorkerState.READY)
    autoscaler.round()
    with monkeypatch.context() as outage:
        outage.setattr(autoscaler, "_client", connect(dead_redis_url()))
        autoscaler.round()
    heartbeats.age(HEARTBEAT_TIMEOUT_SECONDS)
    worker.last_heartbeat_at -= HEARTBEAT_TIMEOUT_SECONDS
    autoscaler.round()
    assert not is_stopping(worker)


async def test_the_heartbeat_timeout_restarts_after_redis_rejected_writes(
    make: Make, launcher: FakeLauncher, ledger: JobLedger, heartbeats: Heartbeats, redis_client: Any
) -> None:
    autoscaler = make()
    await ledger.submit(make_submission())
    autoscaler.round()
    (worker,) = launcher.running
    heartbeats.write(worker, WorkerState.READY)
    autoscaler.round()
    heartbeats.age(HEARTBEAT_TIMEOUT_SECONDS)
    redis_client.replicaof("127.0.0.1", 1)
    try:
        worker.last_heartbeat_at -= HEARTBEAT_TIMEOUT_SECONDS
        autoscaler.round()
    finally:
        redis_client.replicaof("NO", "ONE")
    autoscaler.round()
    assert not is_stopping(worker)


async def test_earlier_heartbeats_of_this_host_are_removed_except_failures(
    make: Make, launcher: FakeLauncher, ledger: JobLedger, heartbeats: Heartbeats
) -> None:
    heartbeats.write(worker_name(12345), WorkerState.READY)
    heartbeats.write(worker_name(12346), WorkerState.FAILED, "it broke")
    heartbeats.age(3)
    await ledger.submit(make_submission())
    make().round()
    assert list(heartbeats.read()) == [worker_name(12346)]
    assert launcher.started == 1


async def test_workers_of_other_hosts_count(
    make: Make, launcher: FakeLauncher, ledger: JobLedger, heartbeats: Heartbeats
) -> None:
    heartbeats.write("elsewhere-1", WorkerState.READY)
    autoscaler = make()
    await ledger.submit(make_submission())
    autoscaler.round()
    assert launcher.started == 0


async def test_each_model_has_a_separate_pool(
    make: Make, launcher: FakeLauncher, ledger: JobLedger, published_ends: list[str]
) -> None:
    autoscaler = make(MODEL, "other")
    await ledger.submit(make_submission())
    autoscaler.round()
    assert [worker.model for worker in launcher.running] == [MODEL]
    assert published_ends == [f"{MODEL}: 1 request waits: starting a worker"]


async def test_an_idle_pool_yields_its_slot_to_a_pool_with_work(
    make: Make, launcher: FakeLauncher, ledger: JobLedger, heartbeats: Heartbeats, published_ends: list[str]
) -> None:
    autoscaler = make(MODEL, "idle", capacity=1, idle_seconds=300)
    launcher.start(ModelSpec(name="idle", engine="lexical"))
    (idle,) = launcher.running
    heartbeats.write(idle, WorkerState.READY)
    autoscaler.round()
    await ledger.submit(make_submission())
    for _ in range(3):
        autoscaler.round()
    assert is_stopping(idle)
    assert launcher.started == 1
    assert "idle: another model needs the slot: stopping the worker" in published_ends

    launcher.end(idle, 0)
    autoscaler.round()
    assert [worker.model for worker in launcher.running] == [MODEL]


async def test_an_observe_only_launcher_announces_what_it_would_do_and_does_nothing(
    make: Make, ledger: JobLedger, heartbeats: Heartbeats, published_ends: list[str]
) -> None:
    autoscaler = make(launcher=ObserveOnlyLauncher())
    await ledger.submit(make_submission())
    for _ in range(3):
        autoscaler.round()
    heartbeats.write("pod-1", WorkerState.READY)
    autoscaler.round()
    await ledger.cancel(await read_record(ledger))
    for _ in range(3):
        autoscaler.round()
    assert published_ends == ["1 request waits: would start a worker", "idle for 0 s: would stop the worker"]


async def test_close_stops_every_worker(make: Make, launcher: FakeLauncher, heartbeats: Heartbeats) -> None:
    autoscaler = make(min=2, max=2)
    autoscaler.round()
    for worker in launcher.running:
        heartbeats.write(worker, WorkerState.READY)
    autoscaler.close()
    assert launcher.running == []
    assert heartbeats.read() == {}
