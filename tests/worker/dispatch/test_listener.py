import threading
from collections.abc import Iterator

import pytest

from shared.contracts import WorkClass
from shared.ledger.verdicts import NO_FREE_SLOTS, FreeSlots
from shared.ledger.worker_ledger import WorkerLedger
from shared.queue.messages import WakeUp
from tests.shared.support import JOB
from tests.worker.support import ShakyLedger, WakeUpSender, a_while, wait_until
from worker.dispatch.listener import QueueListener

INTERACTIVE, BATCH = WorkClass.INTERACTIVE, WorkClass.BATCH
AMPLE = FreeSlots(9, 9)


@pytest.fixture
def told() -> list[str]:
    """One entry for each time that somebody was told."""
    return []


@pytest.fixture
def listener(enqueueing_worker: WorkerLedger, told: list[str]) -> Iterator[QueueListener]:
    listener = QueueListener(enqueueing_worker, lambda: told.append("something was heard"))
    yield listener
    listener.stop()


def bell(shard: int, work_class: WorkClass = INTERACTIVE) -> WakeUp:
    return WakeUp(JOB, shard, work_class)


def test_every_doorbell_is_told_of_and_can_be_taken_once(
    listener: QueueListener, wake_ups: WakeUpSender, told: list[str]
) -> None:
    listener.start(batch=True)
    wake_ups.send(0)
    wait_until(lambda: len(told) == 1)
    wake_ups.send(1, work_class=BATCH)
    wait_until(lambda: len(told) == 2)
    assert listener.take(AMPLE) == [bell(0), bell(1, BATCH)]
    assert listener.take(AMPLE) == []


def test_only_what_there_is_room_for_can_be_taken_and_the_rest_refused(
    listener: QueueListener, wake_ups: WakeUpSender, told: list[str]
) -> None:
    wake_ups.send(0, 1, 2)
    wake_ups.send(3, 4, work_class=BATCH)
    listener.start(batch=True)
    wait_until(lambda: len(told) == 5)
    assert not listener.has_wake_ups(NO_FREE_SLOTS)
    assert listener.take(NO_FREE_SLOTS) == []
    assert listener.take(FreeSlots(2, 1)) == [bell(0), bell(1)]
    assert listener.take(FreeSlots(2, 1)) == [bell(2), bell(3, BATCH)]
    assert not listener.has_wake_ups(FreeSlots(5, 0))
    assert listener.reject(AMPLE) == []
    assert listener.reject(FreeSlots(5, 0)) == [bell(4, BATCH)]
    assert not listener.has_wake_ups(AMPLE)


def test_batch_work_is_left_where_it_is_not_wanted(listener: QueueListener, wake_ups: WakeUpSender) -> None:
    listener.start(batch=False)
    wake_ups.send(0, work_class=BATCH)
    a_while(0.3)
    assert not listener.has_wake_ups(AMPLE)
    listener.start(batch=True)
    wait_until(lambda: listener.has_wake_ups(AMPLE))


def test_hushed_it_leaves_everything_to_others_and_it_can_listen_again(
    listener: QueueListener, wake_ups: WakeUpSender
) -> None:
    listener.start(batch=True)
    a_while()
    listener.pause(wait=True)
    wake_ups.send(0)
    a_while(0.3)
    assert wake_ups.waiting() == 1
    listener.start(batch=True)
    wait_until(lambda: listener.has_wake_ups(AMPLE))


def test_stopped_it_has_no_thread_and_gives_back_what_it_heard(listener: QueueListener, wake_ups: WakeUpSender) -> None:
    for shard in (0, 1):
        listener.start(batch=True)
        wake_ups.send(shard)
        wait_until(lambda: listener.has_wake_ups(AMPLE))
        assert listener.stop() == [bell(shard)]
        assert "listener" not in {thread.name for thread in threading.enumerate()}
    assert listener.stop() == []


def test_a_redis_that_is_away_for_a_while_is_listened_to_again(shaky: ShakyLedger, wake_ups: WakeUpSender) -> None:
    listener = QueueListener(shaky, lambda: None)
    shaky.away = True
    listener.start(batch=True)
    wait_until(lambda: shaky.failed["wait_for_wake_up"] > 0)
    shaky.away = False
    wake_ups.send(0)
    wait_until(lambda: listener.has_wake_ups(AMPLE))
    assert listener.stop() == [bell(0)]
