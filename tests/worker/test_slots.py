import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from types import SimpleNamespace
from typing import Any

import celery._state
import celery.worker.state
import pytest
from celery import Celery
from celery.app.trace import reset_worker_optimizations, setup_worker_optimizations
from celery.worker import WorkController
from kombu.utils.scheduling import cycle_by_name

from shared import keys
from shared.celery_app import TASK_NAME, make_celery, pool_queues
from shared.contracts import WorkClass
from tests.shared.support import MODEL
from worker.slots import TAKEN_SECONDS, Slots, queue_order

INTERACTIVE = keys.queue_name(MODEL, WorkClass.INTERACTIVE)
BATCH = keys.queue_name(MODEL, WorkClass.BATCH)

BATCH_SECONDS = 0.5
"""Far more than an interactive shard may wait: it must not be a batch shard's end that it waits for."""


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def order_of(slots: Slots, *names: str) -> Any:
    """The order as kombu makes it, told of the queues as kombu tells it: in a set."""
    by_name: Any = cycle_by_name
    order = by_name(queue_order(slots))()
    order.update(set(names or (BATCH, INTERACTIVE)))
    return order


class TestCounting:
    def test_a_running_batch_shard_counts_until_it_ends_however_it_ends(self) -> None:
        slots = Slots(4, 1)
        with slots.batch(), slots.batch():
            assert slots.batch_in_flight == 2
        with suppress(RuntimeError), slots.batch():
            raise RuntimeError
        assert slots.batch_in_flight == 0

    def test_batch_may_come_until_only_the_reserved_slots_are_left(self) -> None:
        slots = Slots(3, 1)
        with slots.batch():
            assert slots.batch_may_come()
            with slots.batch():
                assert not slots.batch_may_come()
            assert slots.batch_may_come()

    def test_a_message_counts_from_when_it_is_taken_and_once(self) -> None:
        slots = Slots(4, 1)
        slots.take_batch()
        slots.take_batch()
        with slots.batch():
            assert slots.batch_in_flight == 2
        assert slots.batch_in_flight == 1

    def test_a_message_that_nobody_begins_holds_its_slot_for_a_moment_only(self) -> None:
        clock = Clock()
        slots = Slots(4, 1, clock)
        slots.take_batch()
        clock.now += TAKEN_SECONDS - 0.01
        assert slots.batch_in_flight == 1
        clock.now += 0.01
        assert slots.batch_in_flight == 0

    def test_threads_do_not_miscount(self) -> None:
        slots = Slots(64, 16)

        def shard(_: int) -> None:
            slots.take_batch()
            with slots.batch():
                assert slots.batch_in_flight >= 1

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(shard, range(2000)))
        assert slots.batch_in_flight == 0


class TestOrder:
    def test_the_interactive_queue_is_asked_first_whoever_gave_the_last_message(self) -> None:
        order = order_of(Slots(4, 1))
        for name in (INTERACTIVE, BATCH, INTERACTIVE):
            assert order.consume(2) == [INTERACTIVE, BATCH]
            assert order.rotate(name) == name

    def test_the_batch_queue_is_left_out_while_batch_has_all_it_may_have(self) -> None:
        slots = Slots(2, 1)
        order = order_of(slots)
        with slots.batch():
            assert order.consume(2) == [INTERACTIVE]
        assert order.consume(2) == [INTERACTIVE, BATCH]

    def test_a_batch_message_holds_its_slot_before_its_thread_runs(self) -> None:
        order = order_of(Slots(2, 1))
        order.rotate(INTERACTIVE)
        assert order.consume(2) == [INTERACTIVE, BATCH]
        order.rotate(BATCH)
        assert order.consume(2) == [INTERACTIVE]

    def test_names_with_the_prefix_are_told_apart_too(self) -> None:
        names = [keys.PREFIX + INTERACTIVE, keys.PREFIX + BATCH]
        order = order_of(Slots(2, 1), *names)
        assert order.consume(2) == names
        order.rotate(names[1])
        assert order.consume(2) == names[:1]

    def test_no_more_names_are_given_than_asked_for(self) -> None:
        order = order_of(Slots(2, 1))
        assert order.consume(1) == [INTERACTIVE]
        order.update([])
        assert order.consume(2) == []

    def test_two_workers_share_nothing(self) -> None:
        full, free = Slots(2, 1), Slots(2, 1)
        orders = [order_of(full), order_of(free)]
        with full.batch():
            assert [len(order.consume(2)) for order in orders] == [1, 2]


@pytest.fixture
def app(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    """An app whose worker leaves Celery's process-wide state as it was."""
    monkeypatch.setattr(celery._state, "_on_app_finalizers", set())
    # Put back afterwards what the worker changes.
    apps: Any = celery._state
    monkeypatch.setattr(apps, "default_app", apps.default_app)
    monkeypatch.setattr(apps, "_task_join_will_block", apps._task_join_will_block)
    app = make_celery(redis_url)
    app.conf.task_queues = pool_queues(MODEL)
    yield app
    reset_worker_optimizations(app)
    app.close()


@contextmanager
def working(app: Celery, concurrency: int) -> Iterator[None]:
    """A worker with the threads pool, as `python -m worker` has it, in a thread of this process."""
    told: Any = celery.worker.state

    def work() -> None:
        # What app.Worker does beside taking over signals and logging, which are the test runner's.
        setup_worker_optimizations(app)
        worker: Any = WorkController(
            app=app,
            hostname="worker@test",
            pool="threads",
            concurrency=concurrency,
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
        )
        worker.start()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        told.should_stop = 0
        thread.join(timeout=30)
        told.should_stop = None
        assert not thread.is_alive()


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_with_a_backlog_of_batch_work_interactive_work_starts_at_once(app: Celery, redis_client: Any) -> None:
    slots = Slots(concurrency=8, reserved=2)
    app.conf.broker_transport_options |= {"queue_order_strategy": queue_order(slots)}
    seen = SimpleNamespace(waits=[], most_batch=0)

    def score_shard(self: Any, job_id: str, sent: float) -> None:
        batch = keys.work_class_of(self.request.delivery_info["routing_key"]) is WorkClass.BATCH
        with slots.batch() if batch else nullcontext():
            if not batch:
                seen.waits.append(time.monotonic() - sent)
            seen.most_batch = max(seen.most_batch, slots.batch_in_flight)
            time.sleep(BATCH_SECONDS if batch else 0.05)

    task: Any = app.task(name=TASK_NAME, bind=True, shared=False)(score_shard)
    for number in range(200):
        task.apply_async(args=(f"batch-{number}", 0.0), queue=BATCH)
    with working(app, concurrency=8):
        wait_until(lambda: seen.most_batch == 6)
        for number in range(20):
            task.apply_async(args=(f"interactive-{number}", time.monotonic()), queue=INTERACTIVE)
            time.sleep(0.05)
        wait_until(lambda: len(seen.waits) == 20)
        assert redis_client.llen(keys.queue(MODEL, WorkClass.BATCH)) > 0
    assert seen.most_batch == 6
    # The slowest may be the machine's hiccup. A few milliseconds are usual; without a reserved slot it is hundreds.
    assert sorted(seen.waits)[-2] <= 0.06
