"""How a worker hears of work: with what it hands in, and by listening."""

import logging
import time
from typing import Any

import pytest

from shared.contracts import WorkClass
from shared.errors import StoreUnavailable
from shared.keys import queue_keys
from shared.ledger.job_ledger import JobLedger
from shared.ledger.verdicts import NO_FREE_SLOTS, FinishVerdict, FreeSlots
from shared.ledger.worker_ledger import WorkerLedger
from shared.queue.celery_app import make_celery
from shared.queue.messages import MessageBuilder, WakeUp
from shared.store.client import connect
from tests.shared.support import (
    JOB,
    MODEL,
    StoreView,
    dead_redis_url,
    make_lease,
    make_scores,
    make_submission,
    out_of_memory,
    read_message,
)

INTERACTIVE, BATCH = WorkClass.INTERACTIVE, WorkClass.BATCH


class Queues:
    """Rings as the API does."""

    def __init__(self, client: Any, messages: MessageBuilder) -> None:
        self._client = client
        self._envelopes = messages

    def send(self, *shards: int, work_class: WorkClass = INTERACTIVE) -> None:
        for shard in shards:
            message = self._envelopes.build(queue_keys.queue_name(MODEL, work_class), JOB, shard)
            self._client.lpush(queue_keys.queue(MODEL, work_class), message)


@pytest.fixture
def queues(redis_client: Any, redis_url: str) -> Queues:
    return Queues(redis_client, MessageBuilder(make_celery(redis_url)))


def heard(doorbells: list[WakeUp]) -> list[tuple[str, int]]:
    assert all(bell.job_id == JOB for bell in doorbells)
    return [(bell.work_class.value, bell.shard) for bell in doorbells]


class TestTaking:
    def test_those_that_wait_longest_come_first_and_interactive_ones_before_all(
        self, worker: WorkerLedger, queues: Queues
    ) -> None:
        queues.send(0, 1, work_class=BATCH)
        queues.send(2, 3)
        _, doorbells = worker.finish_and_dequeue([], FreeSlots(9, 9))
        assert heard(doorbells) == [("interactive", 2), ("interactive", 3), ("batch", 0), ("batch", 1)]
        assert worker.finish_and_dequeue([], FreeSlots(9, 9)) == ([], [])

    @pytest.mark.parametrize(
        ("room", "expected"),
        [
            (NO_FREE_SLOTS, []),
            (FreeSlots(1, 1), [("interactive", 0)]),
            (FreeSlots(2, 0), [("interactive", 0), ("interactive", 1)]),
            (FreeSlots(3, 3), [("interactive", 0), ("interactive", 1), ("batch", 2)]),
            (FreeSlots(9, 1), [("interactive", 0), ("interactive", 1), ("batch", 2)]),
        ],
    )
    def test_no_more_are_taken_than_there_is_room_for_in_all_and_of_batch_work(
        self, worker: WorkerLedger, queues: Queues, store: StoreView, room: FreeSlots, expected: list[tuple[str, int]]
    ) -> None:
        queues.send(0, 1)
        queues.send(2, 3, work_class=BATCH)
        _, doorbells = worker.finish_and_dequeue([], room)
        assert heard(doorbells) == expected
        assert len(store.messages()) + len(store.messages(BATCH)) == 4 - len(expected)

    async def test_with_scores_that_are_handed_in(
        self, ledger: JobLedger, worker: WorkerLedger, queues: Queues, store: StoreView
    ) -> None:
        await ledger.submit(make_submission(shards=3))
        store.drop_messages()
        for shard in (0, 1):
            worker.claim(make_lease(shard))
        queues.send(2)
        finishes = [(make_lease(shard), make_scores(0.5), INTERACTIVE) for shard in (0, 1, 0)]
        verdicts, doorbells = worker.finish_and_dequeue(finishes, FreeSlots(1, 0))
        assert verdicts == [FinishVerdict.ACCEPTED, FinishVerdict.ACCEPTED, FinishVerdict.STALE]
        assert doorbells == [WakeUp(JOB, 2, INTERACTIVE)]

    async def test_the_next_shards_of_several_jobs_are_rung_for(
        self, ledger: JobLedger, enqueueing_worker: WorkerLedger, store: StoreView
    ) -> None:
        finishes = []
        for job_id, work_class in (("job-1", INTERACTIVE), ("job-2", BATCH), ("job-3", INTERACTIVE)):
            await ledger.submit(make_submission(job_id, shards=2, enqueued=1, work_class=work_class))
            enqueueing_worker.claim(make_lease(job_id=job_id))
            finishes.append((make_lease(job_id=job_id), make_scores(0.5), work_class))
        store.drop_messages()
        enqueueing_worker.finish_and_dequeue(finishes, NO_FREE_SLOTS)
        assert [read_message(message) for message in store.messages()] == [("job-1", 1), ("job-3", 1)]
        assert [read_message(message) for message in store.messages(BATCH)] == [("job-2", 1)]

    async def test_a_doorbell_that_cannot_be_rung_is_no_reason_to_lose_the_others(
        self,
        ledger: JobLedger,
        enqueueing_worker: WorkerLedger,
        queues: Queues,
        store: StoreView,
        redis_client: Any,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """The queue of batch work is no list: nothing can be pushed there."""
        await ledger.submit(make_submission(shards=2, enqueued=1, work_class=BATCH))
        enqueueing_worker.claim(make_lease())
        store.drop_messages()
        redis_client.set(queue_keys.queue(MODEL, BATCH), "no list")
        queues.send(7)
        with caplog.at_level(logging.WARNING):
            verdicts, doorbells = enqueueing_worker.finish_and_dequeue(
                [(make_lease(), make_scores(0.5), BATCH)], FreeSlots(1, 0)
            )
        assert verdicts == [FinishVerdict.ACCEPTED]
        assert heard(doorbells) == [("interactive", 7)]
        assert "could not be sent" in caplog.text
        # The reconciler knows of it.
        assert store.due_in_seconds(1) > 0

    def test_a_full_redis_gives_what_it_has(self, worker: WorkerLedger, queues: Queues, redis_client: Any) -> None:
        queues.send(0, 1)
        with out_of_memory(redis_client):
            assert len(worker.finish_and_dequeue([], FreeSlots(1, 0))[1]) == 1
            assert worker.wait_for_wake_up(1, batch=True) == WakeUp(JOB, 1, INTERACTIVE)

    def test_without_anything_to_say_redis_is_left_alone(self) -> None:
        with connect(dead_redis_url()) as client:
            worker = WorkerLedger(client, MODEL)
            assert worker.finish_and_dequeue([], NO_FREE_SLOTS) == ([], [])
            with pytest.raises(StoreUnavailable):
                worker.finish_and_dequeue([], FreeSlots(1, 1))


class TestRinging:
    def test_what_is_rung_for_again_is_heard_first(self, enqueueing_worker: WorkerLedger, queues: Queues) -> None:
        queues.send(0)
        enqueueing_worker.enqueue([WakeUp(JOB, 1, INTERACTIVE), WakeUp(JOB, 2, BATCH)])
        _, doorbells = enqueueing_worker.finish_and_dequeue([], FreeSlots(9, 9))
        assert heard(doorbells) == [("interactive", 1), ("interactive", 0), ("batch", 2)]

    def test_it_raises_nothing(self, redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
        with connect(dead_redis_url()) as client, caplog.at_level(logging.WARNING):
            worker = WorkerLedger(client, MODEL, MessageBuilder(make_celery(redis_url)))
            worker.enqueue([])
            assert caplog.records == []
            worker.enqueue([WakeUp(JOB, 1, INTERACTIVE)])
            assert len(caplog.records) == 1

    @pytest.mark.parametrize(
        ("come", "left"),
        [
            ([], FreeSlots(3, 2)),
            ([INTERACTIVE], FreeSlots(2, 2)),
            ([BATCH], FreeSlots(2, 1)),
            ([INTERACTIVE, INTERACTIVE], FreeSlots(1, 1)),
            ([BATCH] * 5, NO_FREE_SLOTS),
        ],
    )
    def test_room_is_less_when_some_have_come(self, come: list[WorkClass], left: FreeSlots) -> None:
        doorbells = [WakeUp(JOB, shard, work_class) for shard, work_class in enumerate(come)]
        assert FreeSlots(3, 2).without(doorbells) == left


class TestListening:
    def test_interactive_work_is_heard_first(self, worker: WorkerLedger, queues: Queues) -> None:
        queues.send(0, work_class=BATCH)
        queues.send(1)
        assert worker.wait_for_wake_up(1, batch=True) == WakeUp(JOB, 1, INTERACTIVE)
        assert worker.wait_for_wake_up(1, batch=True) == WakeUp(JOB, 0, BATCH)

    def test_batch_work_is_heard_only_where_it_is_wanted(
        self, worker: WorkerLedger, queues: Queues, store: StoreView
    ) -> None:
        queues.send(0, work_class=BATCH)
        assert worker.wait_for_wake_up(0.05, batch=False) is None
        assert len(store.messages(BATCH)) == 1

    @pytest.mark.parametrize("seconds", [0.05, 0.0004, 1e-9, 0.0])
    def test_silence_is_none_and_never_lasts(self, worker: WorkerLedger, seconds: float) -> None:
        """For Redis a wait of 0 has no end, and less than a millisecond is 0."""
        started = time.monotonic()
        assert worker.wait_for_wake_up(seconds, batch=True) is None
        assert time.monotonic() - started < 1

    def test_no_redis_is_store_unavailable(self) -> None:
        with connect(dead_redis_url()) as client, pytest.raises(StoreUnavailable):
            WorkerLedger(client, MODEL).wait_for_wake_up(0.1, batch=True)
