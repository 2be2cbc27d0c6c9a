"""How a worker hears of work: with what it hands in, and by listening."""

import logging
import time
from typing import Any

import pytest

from shared import keys
from shared.contracts import WorkClass
from shared.errors import StoreUnavailable
from shared.ledger.job_ledger import Ledger
from shared.ledger.worker_ledger import NO_ROOM, Doorbell, FinishVerdict, Room, WorkerLedger
from shared.queue.celery_app import Envelopes, make_celery
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
    read_doorbell,
)

INTERACTIVE, BATCH = WorkClass.INTERACTIVE, WorkClass.BATCH


class Queues:
    """Rings as the API does."""

    def __init__(self, client: Any, envelopes: Envelopes) -> None:
        self._client = client
        self._envelopes = envelopes

    def ring(self, *shards: int, work_class: WorkClass = INTERACTIVE) -> None:
        for shard in shards:
            envelope = self._envelopes.build(keys.queue_name(MODEL, work_class), JOB, shard)
            self._client.lpush(keys.queue(MODEL, work_class), envelope)


@pytest.fixture
def queues(redis_client: Any, redis_url: str) -> Queues:
    return Queues(redis_client, Envelopes(make_celery(redis_url)))


def heard(doorbells: list[Doorbell]) -> list[tuple[str, int]]:
    assert all(bell.job_id == JOB for bell in doorbells)
    return [(bell.work_class.value, bell.shard) for bell in doorbells]


class TestTaking:
    def test_those_that_wait_longest_come_first_and_interactive_ones_before_all(
        self, worker: WorkerLedger, queues: Queues
    ) -> None:
        queues.ring(0, 1, work_class=BATCH)
        queues.ring(2, 3)
        _, doorbells = worker.exchange([], Room(9, 9))
        assert heard(doorbells) == [("interactive", 2), ("interactive", 3), ("batch", 0), ("batch", 1)]
        assert worker.exchange([], Room(9, 9)) == ([], [])

    @pytest.mark.parametrize(
        ("room", "expected"),
        [
            (NO_ROOM, []),
            (Room(1, 1), [("interactive", 0)]),
            (Room(2, 0), [("interactive", 0), ("interactive", 1)]),
            (Room(3, 3), [("interactive", 0), ("interactive", 1), ("batch", 2)]),
            (Room(9, 1), [("interactive", 0), ("interactive", 1), ("batch", 2)]),
        ],
    )
    def test_no_more_are_taken_than_there_is_room_for_in_all_and_of_batch_work(
        self, worker: WorkerLedger, queues: Queues, store: StoreView, room: Room, expected: list[tuple[str, int]]
    ) -> None:
        queues.ring(0, 1)
        queues.ring(2, 3, work_class=BATCH)
        _, doorbells = worker.exchange([], room)
        assert heard(doorbells) == expected
        assert len(store.doorbells()) + len(store.doorbells(BATCH)) == 4 - len(expected)

    async def test_with_scores_that_are_handed_in(
        self, ledger: Ledger, worker: WorkerLedger, queues: Queues, store: StoreView
    ) -> None:
        await ledger.submit(make_submission(shards=3))
        store.take_doorbells()
        for shard in (0, 1):
            worker.claim(make_lease(shard))
        queues.ring(2)
        finishes = [(make_lease(shard), make_scores(0.5), INTERACTIVE) for shard in (0, 1, 0)]
        verdicts, doorbells = worker.exchange(finishes, Room(1, 0))
        assert verdicts == [FinishVerdict.ACCEPTED, FinishVerdict.ACCEPTED, FinishVerdict.STALE]
        assert doorbells == [Doorbell(JOB, 2, INTERACTIVE)]

    async def test_the_next_shards_of_several_jobs_are_rung_for(
        self, ledger: Ledger, ringing_worker: WorkerLedger, store: StoreView
    ) -> None:
        finishes = []
        for job_id, work_class in (("job-1", INTERACTIVE), ("job-2", BATCH), ("job-3", INTERACTIVE)):
            await ledger.submit(make_submission(job_id, shards=2, rung=1, work_class=work_class))
            ringing_worker.claim(make_lease(job_id=job_id))
            finishes.append((make_lease(job_id=job_id), make_scores(0.5), work_class))
        store.take_doorbells()
        ringing_worker.exchange(finishes, NO_ROOM)
        assert [read_doorbell(message) for message in store.doorbells()] == [("job-1", 1), ("job-3", 1)]
        assert [read_doorbell(message) for message in store.doorbells(BATCH)] == [("job-2", 1)]

    async def test_a_doorbell_that_cannot_be_rung_is_no_reason_to_lose_the_others(
        self,
        ledger: Ledger,
        ringing_worker: WorkerLedger,
        queues: Queues,
        store: StoreView,
        redis_client: Any,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """The queue of batch work is no list: nothing can be pushed there."""
        await ledger.submit(make_submission(shards=2, rung=1, work_class=BATCH))
        ringing_worker.claim(make_lease())
        store.take_doorbells()
        redis_client.set(keys.queue(MODEL, BATCH), "no list")
        queues.ring(7)
        with caplog.at_level(logging.WARNING):
            verdicts, doorbells = ringing_worker.exchange([(make_lease(), make_scores(0.5), BATCH)], Room(1, 0))
        assert verdicts == [FinishVerdict.ACCEPTED]
        assert heard(doorbells) == [("interactive", 7)]
        assert "could not be rung" in caplog.text
        # The reconciler knows of it.
        assert store.due_in_seconds(1) > 0

    def test_a_full_redis_gives_what_it_has(self, worker: WorkerLedger, queues: Queues, redis_client: Any) -> None:
        queues.ring(0, 1)
        with out_of_memory(redis_client):
            assert len(worker.exchange([], Room(1, 0))[1]) == 1
            assert worker.listen(1, batch=True) == Doorbell(JOB, 1, INTERACTIVE)

    def test_without_anything_to_say_redis_is_left_alone(self) -> None:
        with connect(dead_redis_url()) as client:
            worker = WorkerLedger(client, MODEL)
            assert worker.exchange([], NO_ROOM) == ([], [])
            with pytest.raises(StoreUnavailable):
                worker.exchange([], Room(1, 1))


class TestRinging:
    def test_what_is_rung_for_again_is_heard_first(self, ringing_worker: WorkerLedger, queues: Queues) -> None:
        queues.ring(0)
        ringing_worker.ring([Doorbell(JOB, 1, INTERACTIVE), Doorbell(JOB, 2, BATCH)])
        _, doorbells = ringing_worker.exchange([], Room(9, 9))
        assert heard(doorbells) == [("interactive", 1), ("interactive", 0), ("batch", 2)]

    def test_it_raises_nothing(self, redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
        with connect(dead_redis_url()) as client, caplog.at_level(logging.WARNING):
            worker = WorkerLedger(client, MODEL, Envelopes(make_celery(redis_url)))
            worker.ring([])
            assert caplog.records == []
            worker.ring([Doorbell(JOB, 1, INTERACTIVE)])
            assert len(caplog.records) == 1

    @pytest.mark.parametrize(
        ("come", "left"),
        [
            ([], Room(3, 2)),
            ([INTERACTIVE], Room(2, 2)),
            ([BATCH], Room(2, 1)),
            ([INTERACTIVE, INTERACTIVE], Room(1, 1)),
            ([BATCH] * 5, NO_ROOM),
        ],
    )
    def test_room_is_less_when_some_have_come(self, come: list[WorkClass], left: Room) -> None:
        doorbells = [Doorbell(JOB, shard, work_class) for shard, work_class in enumerate(come)]
        assert Room(3, 2).without(doorbells) == left


class TestListening:
    def test_interactive_work_is_heard_first(self, worker: WorkerLedger, queues: Queues) -> None:
        queues.ring(0, work_class=BATCH)
        queues.ring(1)
        assert worker.listen(1, batch=True) == Doorbell(JOB, 1, INTERACTIVE)
        assert worker.listen(1, batch=True) == Doorbell(JOB, 0, BATCH)

    def test_batch_work_is_heard_only_where_it_is_wanted(
        self, worker: WorkerLedger, queues: Queues, store: StoreView
    ) -> None:
        queues.ring(0, work_class=BATCH)
        assert worker.listen(0.05, batch=False) is None
        assert len(store.doorbells(BATCH)) == 1

    @pytest.mark.parametrize("seconds", [0.05, 0.0004, 1e-9, 0.0])
    def test_silence_is_none_and_never_lasts(self, worker: WorkerLedger, seconds: float) -> None:
        """For Redis a wait of 0 has no end, and less than a millisecond is 0."""
        started = time.monotonic()
        assert worker.listen(seconds, batch=True) is None
        assert time.monotonic() - started < 1

    def test_no_redis_is_store_unavailable(self) -> None:
        with connect(dead_redis_url()) as client, pytest.raises(StoreUnavailable):
            WorkerLedger(client, MODEL).listen(0.1, batch=True)
