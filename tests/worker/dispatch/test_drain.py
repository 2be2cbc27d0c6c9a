import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import celery.worker.state
import pytest

import worker.dispatch.drain
from shared.contracts import WorkClass
from shared.ledger.job_ledger import JobLedger
from shared.ledger.job_record import JobStatus
from shared.ledger.worker_ledger import WorkerLedger
from tests.shared.support import JOB, StoreView, make_request, make_submission, read_message, read_record
from tests.worker.support import (
    EngineUntilCancelled,
    ScriptedEngine,
    WakeUpSender,
    in_thread,
    make_dispatcher,
    wait_until,
)
from worker.dispatch.dispatcher import Dispatcher
from worker.dispatch.drain import EXIT_ENGINE_DIED, Drain
from worker.dispatch.executor import Executor
from worker.dispatch.leases import LeaseKeeper
from worker.engines.base import BatchScores, Cancellation, EngineDied, ScoringBatch

INTERACTIVE = WorkClass.INTERACTIVE
A_LONG_TIME = 600.0


class ProcessEnd:
    """Records the statuses with which the process would have been ended."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self._ended = threading.Event()

    def __call__(self, status: int) -> None:
        self.statuses.append(status)
        self._ended.set()

    def wait(self) -> bool:
        return self._ended.wait(10)


@pytest.fixture(autouse=True)
def celery_state(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Celery's global state, restored afterwards. Also shortens the time that a process has to exit."""
    monkeypatch.setattr(celery.worker.state, "should_stop", None)
    monkeypatch.setattr(worker.dispatch.drain, "_EXIT_SECONDS", 0.2)
    return celery.worker.state


@pytest.fixture
def process_end() -> ProcessEnd:
    return ProcessEnd()


@pytest.fixture
def restored_handlers() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def dispatcher(enqueueing_worker: WorkerLedger, leases: LeaseKeeper) -> Dispatcher:
    return make_dispatcher(enqueueing_worker, ScriptedEngine(), leases)


def test_beginning_stops_the_consumer_with_a_status(
    dispatcher: Dispatcher, leases: LeaseKeeper, process_end: ProcessEnd, celery_state: Any
) -> None:
    drain = Drain(dispatcher, leases, A_LONG_TIME, process_end)
    assert drain.begin()
    # An exit status: with None or False Celery would continue.
    assert [type(celery_state.should_stop), celery_state.should_stop] == [int, 0]
    assert process_end.statuses == []


def test_a_drain_begins_once(
    dispatcher: Dispatcher, leases: LeaseKeeper, process_end: ProcessEnd, celery_state: Any
) -> None:
    drain = Drain(dispatcher, leases, A_LONG_TIME, process_end)
    assert drain.begin()
    assert not drain.begin(exit_status=7)
    assert (drain.exit_status, celery_state.should_stop) == (0, 0)


def test_on_begin_is_called_once(dispatcher: Dispatcher, leases: LeaseKeeper, process_end: ProcessEnd) -> None:
    calls: list[bool] = []
    drain = Drain(dispatcher, leases, A_LONG_TIME, process_end, on_begin=lambda: calls.append(True))
    drain.begin()
    drain.begin()
    assert calls == [True]


async def test_shards_continue_until_the_deadline_and_are_then_released(
    ledger: JobLedger, enqueueing_worker: WorkerLedger, leases: LeaseKeeper, store: StoreView, process_end: ProcessEnd
) -> None:
    await ledger.submit(make_submission())
    store.drop_messages()
    engine = EngineUntilCancelled()
    dispatcher = make_dispatcher(enqueueing_worker, engine, leases)
    drain = Drain(dispatcher, leases, 0.3, process_end)
    with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)) as running:
        assert engine.started.wait(10)
        drain.begin()
        assert not running.done()
        assert store.shard()["status"] == "leased"
    assert store.shard()["status"] == "queued"
    assert [read_message(message) for message in store.messages()] == [(JOB, 0)]
    assert not {"crashes", "retries"} & set(store.shard())


async def test_nothing_is_claimed_after_the_drain_begins(
    ledger: JobLedger, dispatcher: Dispatcher, leases: LeaseKeeper, process_end: ProcessEnd
) -> None:
    await ledger.submit(make_submission())
    Drain(dispatcher, leases, A_LONG_TIME, process_end).begin()
    dispatcher.run(JOB, 0, INTERACTIVE)
    assert (await read_record(ledger)).status is JobStatus.QUEUED


def test_a_process_that_does_not_exit_after_the_release_is_ended(
    dispatcher: Dispatcher, leases: LeaseKeeper, process_end: ProcessEnd
) -> None:
    Drain(dispatcher, leases, 0.0, process_end).begin()
    assert process_end.wait()
    assert process_end.statuses == [1]


class DyingEngine(EngineUntilCancelled):
    """Scores until cancelled. Dies when it receives `a fatal text`."""

    def score(self, batch: ScoringBatch, cancellation: Cancellation) -> BatchScores:
        if batch.documents == ["a fatal text"]:
            assert self.started.wait(10)
            raise EngineDied("the engine died")
        return super().score(batch, cancellation)


async def test_a_dead_engine_releases_all_shards_at_once_and_sets_the_exit_status(
    ledger: JobLedger,
    enqueueing_worker: WorkerLedger,
    leases: LeaseKeeper,
    store: StoreView,
    wake_ups: WakeUpSender,
    process_end: ProcessEnd,
    celery_state: Any,
) -> None:
    await ledger.submit(make_submission(request=make_request("a slow text", "a fatal text"), shards=2))
    store.drop_messages()
    executor = Executor(DyingEngine())
    dispatcher = Dispatcher(enqueueing_worker, executor, leases, "host-1", concurrency=4)
    drain = Drain(dispatcher, leases, A_LONG_TIME, process_end)
    executor.on_engine_death = drain.on_engine_death
    wake_ups.send(1)
    dispatcher.run(JOB, 0, INTERACTIVE)
    assert [store.shard(shard)["status"] for shard in (0, 1)] == ["queued", "queued"]
    assert {read_message(message) for message in store.messages()} == {(JOB, 0), (JOB, 1)}
    assert not {"crashes", "retries"} & (set(store.shard(0)) | set(store.shard(1)))
    assert drain.exit_status == celery_state.should_stop == EXIT_ENGINE_DIED
    assert process_end.wait()
    assert process_end.statuses == [EXIT_ENGINE_DIED]


@pytest.mark.usefixtures("restored_handlers")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_begins_and_the_second_one_ends_the_process(
    dispatcher: Dispatcher, leases: LeaseKeeper, process_end: ProcessEnd, celery_state: Any, number: signal.Signals
) -> None:
    drain = Drain(dispatcher, leases, A_LONG_TIME, process_end)
    drain.install()
    os.kill(os.getpid(), number)
    wait_until(lambda: celery_state.should_stop is not None)
    assert process_end.statuses == []
    os.kill(os.getpid(), number)
    assert process_end.wait()
    assert process_end.statuses == [128 + number]
