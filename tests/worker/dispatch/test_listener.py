import threading
from collections.abc import Iterator

import pytest

from shared.contracts import WorkClass
from shared.ledger.verdicts import NO_FREE_SLOTS, FreeSlots
from shared.ledger.worker_ledger import WorkerLedger
from shared.queue.messages import WakeUp
from tests.shared.support import JOB
from tests.worker.support import UnreliableLedger, WakeUpSender, wait_briefly, wait_until
from worker.dispatch.listener import QueueListener

INTERACTIVE, BATCH = WorkClass.INTERACTIVE, WorkClass.BATCH
MANY_FREE_SLOTS = FreeSlots(9, 9)


@pytest.fixture
def calls() -> list[str]:
    """One entry for each call of `on_wake_up`."""
    return []


@pytest.fixture
def listener(enqueueing_worker: WorkerLedger, calls: list[str]) -> Iterator[QueueListener]:
    listener = QueueListener(enqueueing_worker, lambda: calls.append("wake-up"))
    yield listener
    listener.stop()


def wake_up(shard: int, work_class: WorkClass = INTERACTIVE) -> WakeUp:
    return WakeUp(JOB, shard, work_class)


def test_every_message_calls_on_wake_up_and_can_be_taken_once(
    listener: QueueListener, wake_ups: WakeUpSender, calls: list[str]
) -> None:
    listener.start(batch=True)
    wake_ups.send(0)
    wait_until(lambda: len(calls) == 1)
    wake_ups.send(1, work_class=BATCH)
    wait_until(lambda: len(calls) == 2)
    assert listener.take(MANY_FREE_SLOTS) == [wake_up(0), wake_up(1, BATCH)]
    assert listener.take(MANY_FREE_SLOTS) == []


def test_messages_that_fit_the_free_slots_are_taken_and_the_others_rejected(
    listener: QueueListener, wake_ups: WakeUpSender, calls: list[str]
) -> None:
    wake_ups.send(0, 1, 2)
    wake_ups.send(3, 4, work_class=BATCH)
    listener.start(batch=True)
    wait_until(lambda: len(calls) == 5)
    assert not listener.has_wake_ups(NO_FREE_SLOTS)
    assert listener.take(NO_FREE_SLOTS) == []
    assert listener.take(FreeSlots(2, 1)) == [wake_up(0), wake_up(1)]
    assert listener.take(FreeSlots(2, 1)) == [wake_up(2), wake_up(3, BATCH)]
    assert not listener.has_wake_ups(FreeSlots(5, 0))
    assert listener.reject(MANY_FREE_SLOTS) == []
    assert listener.reject(FreeSlots(5, 0)) == [wake_up(4, BATCH)]
    assert not listener.has_wake_ups(MANY_FREE_SLOTS)


def test_the_batch_queue_is_read_only_when_requested(listener: QueueListener, wake_ups: WakeUpSender) -> None:
    listener.start(batch=False)
    wake_ups.send(0, work_class=BATCH)
    wait_briefly(0.3)
    assert not listener.has_wake_ups(MANY_FREE_SLOTS)
    listener.start(batch=True)
    wait_until(lambda: listener.has_wake_ups(MANY_FREE_SLOTS))


def test_a_paused_listener_leaves_messages_in_the_queue_and_can_start_again(
    listener: QueueListener, wake_ups: WakeUpSender
) -> None:
    listener.start(batch=True)
    wait_briefly()
    listener.pause(wait=True)
    wake_ups.send(0)
    wait_briefly(0.3)
    assert wake_ups.waiting() == 1
    listener.start(batch=True)
    wait_until(lambda: listener.has_wake_ups(MANY_FREE_SLOTS))


def test_stop_ends_the_thread_and_returns_untaken_messages(listener: QueueListener, wake_ups: WakeUpSender) -> None:
    for shard in (0, 1):
        listener.start(batch=True)
        wake_ups.send(shard)
        wait_until(lambda: listener.has_wake_ups(MANY_FREE_SLOTS))
        assert listener.stop() == [wake_up(shard)]
        assert "listener" not in {thread.name for thread in threading.enumerate()}
    assert listener.stop() == []


def test_the_listener_continues_after_an_outage(unreliable_ledger: UnreliableLedger, wake_ups: WakeUpSender) -> None:
    listener = QueueListener(unreliable_ledger, lambda: None)
    unreliable_ledger.unreachable = True
    listener.start(batch=True)
    wait_until(lambda: unreliable_ledger.failures["wait_for_wake_up"] > 0)
    unreliable_ledger.unreachable = False
    wake_ups.send(0)
    wait_until(lambda: listener.has_wake_ups(MANY_FREE_SLOTS))
    assert listener.stop() == [wake_up(0)]
