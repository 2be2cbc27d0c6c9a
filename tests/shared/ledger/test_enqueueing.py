"""Wake-up messages: which ones a claim removes, which ones are sent, and how a worker waits for one."""

import logging
import time
from collections.abc import Sequence
from typing import Any

import pytest

from shared.contracts import WorkClass
from shared.errors import StoreUnavailable
from shared.keys import queue_keys
from shared.ledger.job_ledger import JobLedger
from shared.ledger.verdicts import ClaimRequest, FinishVerdict, FreeSlots
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
    """Pushes messages as the API does."""

    def __init__(self, client: Any, messages: MessageBuilder) -> None:
        self._client = client
        self._messages = messages

    def send(self, *shards: int, work_class: WorkClass = INTERACTIVE) -> None:
        for shard in shards:
            message = self._messages.build(queue_keys.queue_name(MODEL, work_class), JOB, shard)
            self._client.lpush(queue_keys.queue(MODEL, work_class), message)


@pytest.fixture
def queues(redis_client: Any, redis_url: str) -> Queues:
    return Queues(redis_client, MessageBuilder(make_celery(redis_url)))


def claim_request(shards: int, batch: int = 0, received: Sequence[WakeUp] = ()) -> ClaimRequest:
    return ClaimRequest("worker-1", f"token-{time.monotonic_ns()}", FreeSlots(shards, batch), received)


class TestMessagesOfClaims:
    async def test_a_claim_removes_one_message_for_each_claimed_shard(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission(shards=5))
        await ledger.submit(make_submission("job-2", shards=4, work_class=BATCH))
        worker.finish_and_claim([], claim_request(2))
        assert (len(store.messages()), len(store.messages(BATCH))) == (3, 4)
        worker.finish_and_claim([], claim_request(5, 2))
        assert (len(store.messages()), len(store.messages(BATCH))) == (0, 2)

    async def test_a_received_message_counts(self, ledger: JobLedger, worker: WorkerLedger, store: StoreView) -> None:
        await ledger.submit(make_submission(shards=3))
        wake_up = worker.wait_for_wake_up(1, batch=False) or WakeUp(JOB, 0, INTERACTIVE)
        worker.finish_and_claim([], claim_request(1, received=[wake_up]))
        assert len(store.messages()) == 2

    async def test_a_received_message_is_sent_again_when_its_class_still_waits(
        self, ledger: JobLedger, enqueueing_worker: WorkerLedger, store: StoreView
    ) -> None:
        """A batch message arrived, but interactive work took the only slot."""
        await ledger.submit(make_submission(shards=2))
        await ledger.submit(make_submission("job-2", work_class=BATCH))
        store.drop_messages()
        received = [WakeUp("job-2", 0, BATCH)]
        _, claimed = enqueueing_worker.finish_and_claim([], claim_request(1, 1, received))
        assert [shard.work_class for shard in claimed] == [INTERACTIVE]
        assert [read_message(message) for message in store.messages(BATCH)] == [("job-2", 0)]

    async def test_messages_of_shards_that_no_longer_wait_are_removed(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView, queues: Queues
    ) -> None:
        queues.send(1, 2, 3)
        await ledger.submit(make_submission("job-2", work_class=BATCH))
        worker.finish_and_claim([], claim_request(1))
        assert (store.messages(), len(store.messages(BATCH))) == ([], 1)

    async def test_scores_are_reported_and_shards_claimed_in_one_call(
        self, ledger: JobLedger, worker: WorkerLedger
    ) -> None:
        await ledger.submit(make_submission(shards=3))
        for shard in (0, 1):
            worker.claim(make_lease(shard))
        finishes = [(make_lease(shard), make_scores(0.5), INTERACTIVE) for shard in (0, 1, 0)]
        verdicts, claimed = worker.finish_and_claim(finishes, claim_request(1))
        assert verdicts == [FinishVerdict.ACCEPTED, FinishVerdict.ACCEPTED, FinishVerdict.STALE]
        assert [(shard.lease.job_id, shard.lease.shard) for shard in claimed] == [(JOB, 2)]

    async def test_the_next_shards_of_several_jobs_get_messages(
        self, ledger: JobLedger, enqueueing_worker: WorkerLedger, store: StoreView
    ) -> None:
        finishes = []
        for job_id, work_class in (("job-1", INTERACTIVE), ("job-2", BATCH), ("job-3", INTERACTIVE)):
            await ledger.submit(make_submission(job_id, shards=2, enqueued=1, work_class=work_class))
            enqueueing_worker.claim(make_lease(job_id=job_id))
            finishes.append((make_lease(job_id=job_id), make_scores(0.5), work_class))
        store.drop_messages()
        enqueueing_worker.finish_and_claim(finishes, None)
        assert [read_message(message) for message in store.messages()] == [("job-1", 1), ("job-3", 1)]
        assert [read_message(message) for message in store.messages(BATCH)] == [("job-2", 1)]

    async def test_a_message_that_cannot_be_sent_does_not_lose_the_others(
        self,
        ledger: JobLedger,
        enqueueing_worker: WorkerLedger,
        store: StoreView,
        redis_client: Any,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """The queue of batch work is not a list: nothing can be pushed to it or popped from it."""
        await ledger.submit(make_submission(shards=2, enqueued=1, work_class=BATCH))
        await ledger.submit(make_submission("job-2"))
        enqueueing_worker.claim(make_lease())
        store.drop_messages()
        redis_client.set(queue_keys.queue(MODEL, BATCH), "no list")
        with caplog.at_level(logging.WARNING):
            verdicts, claimed = enqueueing_worker.finish_and_claim(
                [(make_lease(), make_scores(0.5), BATCH)], claim_request(1)
            )
        assert verdicts == [FinishVerdict.ACCEPTED]
        assert [shard.lease.job_id for shard in claimed] == ["job-2"]
        assert "could not be sent" in caplog.text
        # The reconciler knows of it.
        assert store.due_in_seconds(1) > 0

    async def test_a_full_redis_gives_out_its_work(
        self, ledger: JobLedger, worker: WorkerLedger, queues: Queues, store: StoreView, redis_client: Any
    ) -> None:
        await ledger.submit(make_submission(shards=2))
        store.drop_messages()
        queues.send(0, 1)
        with out_of_memory(redis_client):
            assert len(worker.finish_and_claim([], claim_request(1))[1]) == 1
            received = worker.wait_for_wake_up(1, batch=True)
            assert received == WakeUp(JOB, 1, INTERACTIVE)
            assert len(worker.finish_and_claim([], claim_request(1, received=[received]))[1]) == 1

    def test_without_reports_and_request_redis_is_not_called(self) -> None:
        with connect(dead_redis_url()) as client:
            worker = WorkerLedger(client, MODEL)
            assert worker.finish_and_claim([], None) == ([], [])
            with pytest.raises(StoreUnavailable):
                worker.finish_and_claim([], claim_request(1))


class TestEnqueue:
    def test_a_message_that_is_sent_again_is_received_first(
        self, enqueueing_worker: WorkerLedger, queues: Queues
    ) -> None:
        queues.send(0)
        enqueueing_worker.enqueue([WakeUp(JOB, 1, INTERACTIVE), WakeUp(JOB, 2, BATCH)])
        received = [enqueueing_worker.wait_for_wake_up(1, batch=True) for _ in range(3)]
        assert received == [WakeUp(JOB, 1, INTERACTIVE), WakeUp(JOB, 0, INTERACTIVE), WakeUp(JOB, 2, BATCH)]

    def test_it_raises_nothing(self, redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
        with connect(dead_redis_url()) as client, caplog.at_level(logging.WARNING):
            worker = WorkerLedger(client, MODEL, MessageBuilder(make_celery(redis_url)))
            worker.enqueue([])
            assert caplog.records == []
            worker.enqueue([WakeUp(JOB, 1, INTERACTIVE)])
            assert len(caplog.records) == 1

    @pytest.mark.parametrize(
        ("received", "left"),
        [
            ([], FreeSlots(3, 2)),
            ([INTERACTIVE], FreeSlots(2, 2)),
            ([BATCH], FreeSlots(2, 1)),
            ([INTERACTIVE, INTERACTIVE], FreeSlots(1, 1)),
            ([BATCH] * 5, FreeSlots(0, 0)),
        ],
    )
    def test_received_messages_take_free_slots(self, received: list[WorkClass], left: FreeSlots) -> None:
        wake_ups = [WakeUp(JOB, shard, work_class) for shard, work_class in enumerate(received)]
        assert FreeSlots(3, 2).without(wake_ups) == left


class TestWaiting:
    def test_interactive_messages_are_received_first(self, worker: WorkerLedger, queues: Queues) -> None:
        queues.send(0, work_class=BATCH)
        queues.send(1)
        assert worker.wait_for_wake_up(1, batch=True) == WakeUp(JOB, 1, INTERACTIVE)
        assert worker.wait_for_wake_up(1, batch=True) == WakeUp(JOB, 0, BATCH)

    def test_batch_messages_are_received_only_on_request(
        self, worker: WorkerLedger, queues: Queues, store: StoreView
    ) -> None:
        queues.send(0, work_class=BATCH)
        assert worker.wait_for_wake_up(0.05, batch=False) is None
        assert len(store.messages(BATCH)) == 1

    @pytest.mark.parametrize("seconds", [0.05, 0.0004, 1e-9, 0.0])
    def test_without_a_message_the_wait_ends(self, worker: WorkerLedger, seconds: float) -> None:
        """For Redis a wait of 0 has no end, and less than a millisecond is 0."""
        started = time.monotonic()
        assert worker.wait_for_wake_up(seconds, batch=True) is None
        assert time.monotonic() - started < 1
