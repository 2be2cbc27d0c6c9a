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
from tests.worker.support import PatientEngine, ScriptedEngine, WakeUpSender, in_thread, make_dispatcher, wait_until
from worker.dispatch.dispatcher import Dispatcher
from worker.dispatch.drain import EXIT_ENGINE_DIED, Drain
from worker.dispatch.executor import Executor
from worker.dispatch.leases import LeaseKeeper
from worker.engines.base import BatchScores, Cancellation, EngineDied, ScoringBatch

INTERACTIVE = WorkClass.INTERACTIVE
A_LONG_TIME = 600.0


class Ends:
    """What the process would have ended with."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self._ended = threading.Event()

    def __call__(self, status: int) -> None:
        self.statuses.append(status)
        self._ended.set()

    def wait(self) -> bool:
        return self._ended.wait(10)


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What Celery is told; put back afterwards. The last word of a drain comes soon."""
    monkeypatch.setattr(celery.worker.state, "should_stop", None)
    monkeypatch.setattr(worker.dispatch.drain, "_EXIT_SECONDS", 0.2)
    return celery.worker.state


@pytest.fixture
def ends() -> Ends:
    return Ends()


@pytest.fixture
def own_handlers() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def dispatcher(enqueueing_worker: WorkerLedger, leases: LeaseKeeper) -> Dispatcher:
    return make_dispatcher(enqueueing_worker, ScriptedEngine(), leases)


def test_nothing_new_is_taken_at_once(dispatcher: Dispatcher, leases: LeaseKeeper, ends: Ends, told: Any) -> None:
    drain = Drain(dispatcher, leases, A_LONG_TIME, ends)
    assert drain.begin()
    # A status to go with; None would be going on, and False too.
    assert [type(told.should_stop), told.should_stop] == [int, 0]
    assert ends.statuses == []


def test_it_begins_once(dispatcher: Dispatcher, leases: LeaseKeeper, ends: Ends, told: Any) -> None:
    drain = Drain(dispatcher, leases, A_LONG_TIME, ends)
    assert drain.begin()
    assert not drain.begin(exit_status=7)
    assert (drain.exit_status, told.should_stop) == (0, 0)


def test_it_is_told_once_that_it_begins(dispatcher: Dispatcher, leases: LeaseKeeper, ends: Ends) -> None:
    told: list[bool] = []
    drain = Drain(dispatcher, leases, A_LONG_TIME, ends, on_begin=lambda: told.append(True))
    drain.begin()
    drain.begin()
    assert told == [True]


async def test_until_the_deadline_what_runs_goes_on_and_then_it_is_given_back(
    ledger: JobLedger, enqueueing_worker: WorkerLedger, leases: LeaseKeeper, store: StoreView, ends: Ends
) -> None:
    await ledger.submit(make_submission())
    store.drop_messages()
    engine = PatientEngine()
    dispatcher = make_dispatcher(enqueueing_worker, engine, leases)
    drain = Drain(dispatcher, leases, 0.3, ends)
    with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)) as running:
        assert engine.begun.wait(10)
        drain.begin()
        assert not running.done()
        assert store.shard()["status"] == "leased"
    assert store.shard()["status"] == "queued"
    assert [read_message(message) for message in store.messages()] == [(JOB, 0)]
    assert not {"crashes", "retries"} & set(store.shard())


async def test_nothing_is_claimed_any_more(
    ledger: JobLedger, dispatcher: Dispatcher, leases: LeaseKeeper, ends: Ends
) -> None:
    await ledger.submit(make_submission())
    Drain(dispatcher, leases, A_LONG_TIME, ends).begin()
    dispatcher.run(JOB, 0, INTERACTIVE)
    assert (await read_record(ledger)).status is JobStatus.QUEUED


def test_a_process_that_hangs_after_everything_is_ended(
    dispatcher: Dispatcher, leases: LeaseKeeper, ends: Ends
) -> None:
    Drain(dispatcher, leases, 0.0, ends).begin()
    assert ends.wait()
    assert ends.statuses == [1]


class DyingEngine(PatientEngine):
    """Scores for ever, until it is asked to score `the last straw`; then it is dead, and says so."""

    def score(self, batch: ScoringBatch, cancellation: Cancellation) -> BatchScores:
        if batch.documents == ["the last straw"]:
            assert self.begun.wait(10)
            raise EngineDied("the engine is gone")
        return super().score(batch, cancellation)


async def test_a_dead_engine_gives_everything_back_now_and_the_process_says_why_it_went(
    ledger: JobLedger,
    enqueueing_worker: WorkerLedger,
    leases: LeaseKeeper,
    store: StoreView,
    wake_ups: WakeUpSender,
    ends: Ends,
    told: Any,
) -> None:
    await ledger.submit(make_submission(request=make_request("patience", "the last straw"), shards=2))
    store.drop_messages()
    executor = Executor(DyingEngine())
    dispatcher = Dispatcher(enqueueing_worker, executor, leases, "host-1", concurrency=4)
    drain = Drain(dispatcher, leases, A_LONG_TIME, ends)
    executor.on_engine_death = drain.on_engine_death
    wake_ups.send(1)
    dispatcher.run(JOB, 0, INTERACTIVE)
    assert [store.shard(shard)["status"] for shard in (0, 1)] == ["queued", "queued"]
    assert {read_message(message) for message in store.messages()} == {(JOB, 0), (JOB, 1)}
    assert not {"crashes", "retries"} & (set(store.shard(0)) | set(store.shard(1)))
    assert drain.exit_status == told.should_stop == EXIT_ENGINE_DIED
    assert ends.wait()
    assert ends.statuses == [EXIT_ENGINE_DIED]


@pytest.mark.usefixtures("own_handlers")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_begins_and_the_second_one_ends_the_process(
    dispatcher: Dispatcher, leases: LeaseKeeper, ends: Ends, told: Any, number: signal.Signals
) -> None:
    drain = Drain(dispatcher, leases, A_LONG_TIME, ends)
    drain.install()
    os.kill(os.getpid(), number)
    wait_until(lambda: told.should_stop is not None)
    assert ends.statuses == []
    os.kill(os.getpid(), number)
    assert ends.wait()
    assert ends.statuses == [128 + number]
