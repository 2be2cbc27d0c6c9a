import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import celery.worker.state
import pytest

import worker.drain
from shared.contracts import WorkClass
from shared.jobs import JobState
from shared.ledger import Ledger
from shared.worker_ledger import WorkerLedger
from tests.shared.support import JOB, StoreView, make_submission, read_doorbell, read_record
from tests.worker.support import PatientEngine, ToldEngine, in_thread, wait_until
from worker.drain import EXIT_ENGINE_DIED, Drain
from worker.engines.base import EngineDied, ScoringEngine
from worker.executor import Executor
from worker.leases import Leases

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
    monkeypatch.setattr(worker.drain, "_LAST_WORD_SECONDS", 0.2)
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


def make_executor(ledger: WorkerLedger, leases: Leases, engine: ScoringEngine) -> Executor:
    return Executor(ledger, engine, leases, "host-1")


@pytest.fixture
def executor(ringing_worker: WorkerLedger, leases: Leases) -> Executor:
    return make_executor(ringing_worker, leases, ToldEngine())


def test_nothing_new_is_taken_at_once(executor: Executor, leases: Leases, ends: Ends, told: Any) -> None:
    drain = Drain(executor, leases, A_LONG_TIME, ends)
    assert drain.begin()
    # A status to go with; None would be going on, and False too.
    assert [type(told.should_stop), told.should_stop] == [int, 0]
    assert ends.statuses == []


def test_it_begins_once(executor: Executor, leases: Leases, ends: Ends, told: Any) -> None:
    drain = Drain(executor, leases, A_LONG_TIME, ends)
    assert drain.begin()
    assert not drain.begin(exit_status=7)
    assert (drain.exit_status, told.should_stop) == (0, 0)


async def test_until_the_deadline_what_runs_goes_on_and_then_it_is_given_back(
    ledger: Ledger, ringing_worker: WorkerLedger, leases: Leases, store: StoreView, ends: Ends
) -> None:
    await ledger.submit(make_submission())
    store.take_doorbells()
    engine = PatientEngine()
    executor = make_executor(ringing_worker, leases, engine)
    drain = Drain(executor, leases, 0.3, ends)
    with in_thread(lambda: executor.run(JOB, 0, INTERACTIVE)) as running:
        assert engine.begun.wait(10)
        drain.begin()
        assert not running.done()
        assert store.shard()["state"] == "leased"
    assert store.shard()["state"] == "queued"
    assert [read_doorbell(message) for message in store.doorbells()] == [(JOB, 0)]
    assert not {"crashes", "retries"} & set(store.shard())


async def test_after_the_deadline_nothing_is_claimed(
    ledger: Ledger, executor: Executor, leases: Leases, ends: Ends
) -> None:
    await ledger.submit(make_submission())
    Drain(executor, leases, 0.0, ends).begin()
    assert ends.wait()
    executor.run(JOB, 0, INTERACTIVE)
    assert (await read_record(ledger)).state is JobState.QUEUED


def test_a_process_that_hangs_after_everything_is_ended(executor: Executor, leases: Leases, ends: Ends) -> None:
    Drain(executor, leases, 0.0, ends).begin()
    assert ends.wait()
    assert ends.statuses == [1]


async def test_a_dead_engine_gives_everything_back_now_and_the_process_says_why_it_went(
    ledger: Ledger, ringing_worker: WorkerLedger, leases: Leases, store: StoreView, ends: Ends, told: Any
) -> None:
    await ledger.submit(make_submission(shards=2))
    engine = PatientEngine()
    busy = make_executor(ringing_worker, leases, engine)
    dying = make_executor(ringing_worker, leases, ToldEngine(EngineDied("the engine is gone")))
    drain = Drain(busy, leases, A_LONG_TIME, ends)
    dying.on_engine_death = drain.on_engine_death
    with in_thread(lambda: busy.run(JOB, 0, INTERACTIVE)):
        assert engine.begun.wait(10)
        dying.run(JOB, 1, INTERACTIVE)
    assert [store.shard(shard)["state"] for shard in (0, 1)] == ["queued", "queued"]
    assert drain.exit_status == told.should_stop == EXIT_ENGINE_DIED
    assert ends.wait()
    assert ends.statuses == [EXIT_ENGINE_DIED]


@pytest.mark.usefixtures("own_handlers")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_begins_and_the_second_one_ends_the_process(
    executor: Executor, leases: Leases, ends: Ends, told: Any, number: signal.Signals
) -> None:
    drain = Drain(executor, leases, A_LONG_TIME, ends)
    drain.install()
    os.kill(os.getpid(), number)
    wait_until(lambda: told.should_stop is not None)
    assert ends.statuses == []
    os.kill(os.getpid(), number)
    assert ends.wait()
    assert ends.statuses == [128 + number]
