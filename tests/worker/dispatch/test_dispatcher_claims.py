import logging
import threading
import time
from typing import Any

import pytest

from shared.contracts import WorkClass
from shared.keys import job_keys, queue_keys
from shared.ledger.job_ledger import JobLedger
from shared.ledger.job_record import JobStatus
from shared.ledger.worker_ledger import WorkerLedger
from tests.logs import LogLines
from tests.shared.support import JOB, MODEL, StoreView, make_request, make_submission
from tests.worker.support import (
    ManualEngine,
    Pool,
    ScriptedEngine,
    WakeUpSender,
    in_thread,
    make_dispatcher,
    wait_briefly,
    wait_until,
)
from worker.dispatch.dispatcher import BATCH_PAIRS, BATCH_SHARDS_AT_ONCE
from worker.dispatch.leases import LeaseKeeper
from worker.engines.base import BatchScores, Cancellation, ScoringBatch
from worker.engines.lexical import LexicalEngine

INTERACTIVE, BATCH = WorkClass.INTERACTIVE, WorkClass.BATCH


async def test_waiting_shards_are_claimed_while_one_is_scored(pool: Pool, wake_ups: WakeUpSender) -> None:
    await pool.submit("zero", "one", "two", "three")
    engine = ManualEngine()
    dispatcher = make_dispatcher(pool.worker_ledger, engine)
    with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)):
        wait_until(lambda: engine.in_progress() == {"zero"})
        wake_ups.send(1, 2, 3)
        wait_until(lambda: len(engine.in_progress()) == 4)
        engine.finish_all()
    assert len(await pool.scores()) == 4


async def test_no_more_shards_are_claimed_than_there_are_slots(
    pool: Pool, wake_ups: WakeUpSender, store: StoreView
) -> None:
    """A shard that is claimed but only waits would count a crash when the worker crashes."""
    await pool.submit(*(f"text {number}" for number in range(6)))
    await pool.submit(*(f"batch {number}" for number in range(6)), job_id="job-2", work_class=BATCH)
    wake_ups.send(1, 2, 3, 4, 5)
    wake_ups.send(*range(6), job_id="job-2", work_class=BATCH)
    engine = ManualEngine()
    dispatcher = make_dispatcher(pool.worker_ledger, engine, concurrency=4, reserved=1)
    with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)):
        wait_until(lambda: len(engine.in_progress()) == 4)
        wait_briefly()
        leased = [
            (job_id, shard)
            for job_id in (JOB, "job-2")
            for shard in range(6)
            if store.shard(shard, job_id=job_id)["status"] == "leased"
        ]
        assert leased == [(JOB, shard) for shard in range(4)]
        wait_until(lambda: (wake_ups.waiting(), wake_ups.waiting(BATCH)) == (2, 6))
        engine.finish_all()
    assert len(engine.batches) == 12


async def test_batch_work_does_not_use_reserved_slots(pool: Pool, wake_ups: WakeUpSender) -> None:
    await pool.submit(*(f"batch {number}" for number in range(8)), work_class=BATCH)
    await pool.submit("interactive 0", "interactive 1", "interactive 2", job_id="job-2")
    wake_ups.send(*range(1, 8), work_class=BATCH)
    engine = ManualEngine()
    dispatcher = make_dispatcher(pool.worker_ledger, engine, concurrency=4, reserved=2)
    with in_thread(lambda: dispatcher.run(JOB, 0, BATCH)):
        wait_until(lambda: len(engine.in_progress()) == 2)
        wait_briefly()
        assert engine.in_progress() == {"batch 0", "batch 1"}
        wake_ups.send(0, 1, 2, job_id="job-2")
        wait_until(lambda: {"interactive 0", "interactive 1"} <= engine.in_progress())
        wait_briefly()
        assert len(engine.in_progress()) == 4
        # A slot freed by interactive work goes to interactive work.
        engine.finish("interactive 0")
        wait_until(lambda: engine.in_progress() == {"batch 0", "batch 1", "interactive 1", "interactive 2"})
        engine.finish_all()
    assert len(engine.batches) == 11


async def test_batch_claims_stop_at_the_limit_of_batch_pairs(
    ledger: JobLedger, enqueueing_worker: WorkerLedger, wake_ups: WakeUpSender
) -> None:
    """Unclaimed work can be scored by other workers."""
    pairs = BATCH_PAIRS // 3
    request = make_request(*(f"text {number}" for number in range(20 * pairs)))
    await ledger.submit(make_submission(request=request, shards=20, work_class=BATCH))
    wake_ups.clear()
    wake_ups.send(*range(1, 20), work_class=BATCH)
    engine = ManualEngine()
    dispatcher = make_dispatcher(enqueueing_worker, engine, concurrency=64)
    with in_thread(lambda: dispatcher.run(JOB, 0, BATCH)):
        wait_until(lambda: len(engine.in_progress()) >= 3)
        wait_briefly(0.3)
        held = len(engine.in_progress())
        engine.finish_all()
    # The first shard and the result of at most two claims, not all shards.
    assert held <= 1 + 2 * BATCH_SHARDS_AT_ONCE < 20
    assert len(engine.batches) == 20


async def test_interactive_work_may_use_all_slots(pool: Pool, wake_ups: WakeUpSender) -> None:
    await pool.submit("zero", "one", "two", "three")
    wake_ups.send(1, 2, 3)
    engine = ManualEngine()
    dispatcher = make_dispatcher(pool.worker_ledger, engine, concurrency=4, reserved=3)
    with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)):
        wait_until(lambda: len(engine.in_progress()) == 4)
        engine.finish_all()


async def test_interactive_work_starts_at_once_despite_a_batch_backlog(pool: Pool, wake_ups: WakeUpSender) -> None:
    class SlowForBatch(ScriptedEngine):
        """Scores batch work far more slowly than an interactive shard may wait."""

        def score(self, batch: ScoringBatch, cancellation: Cancellation) -> BatchScores:
            if batch.documents[0] == "interactive":
                waits.append(time.monotonic() - sent_at)
            else:
                time.sleep(0.5)
            return super().score(batch, cancellation)

    waits: list[float] = []
    sent_at = 0.0
    await pool.submit(*["batch"] * 60, work_class=BATCH)
    await pool.submit(*["interactive"] * 15, job_id="job-2")
    wake_ups.send(*range(1, 60), work_class=BATCH)
    dispatcher = make_dispatcher(pool.worker_ledger, SlowForBatch(), concurrency=8, reserved=2)
    with in_thread(lambda: dispatcher.run(JOB, 0, BATCH)):
        wait_until(lambda: wake_ups.waiting(BATCH) <= 54)
        for shard in range(15):
            sent_at = time.monotonic()
            wake_ups.send(shard, job_id="job-2")
            wait_until(lambda: len(waits) == shard + 1)  # noqa: B023
            wait_briefly(0.03)
        assert wake_ups.waiting(BATCH) > 0
        dispatcher.close()
    # A few milliseconds are usual, hundreds without reserved slots. Ignore the slowest one: the machine may stall.
    assert sorted(waits)[-2] <= 0.06


async def test_waiting_interactive_work_is_claimed_before_batch_work(pool: Pool, wake_ups: WakeUpSender) -> None:
    await pool.submit("first", "b 1", "b 2", "b 3", work_class=BATCH)
    await pool.submit("i 0", "i 1", job_id="job-2")
    wake_ups.send(1, 2, 3, work_class=BATCH)
    wake_ups.send(0, 1, job_id="job-2")
    engine = ScriptedEngine()
    make_dispatcher(pool.worker_ledger, engine, concurrency=1).run(JOB, 0, BATCH)
    assert [batch.documents[0] for batch in engine.batches] == ["i 0", "i 1", "first", "b 1", "b 2", "b 3"]


@pytest.mark.parametrize(
    "message",
    [
        b"not JSON",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"headers": null}',
        b'{"headers": {"id": 7}}',
        b'{"headers": {"id": "job-1"}}',
        b'{"headers": {"id": "job-1/first"}}',
    ],
)
async def test_an_unreadable_message_is_skipped_and_other_messages_are_processed(
    pool: Pool, wake_ups: WakeUpSender, store: StoreView, logged: LogLines, message: bytes
) -> None:
    await pool.submit("zero", "one", "two")
    dispatcher = make_dispatcher(pool.worker_ledger, ScriptedEngine(), linger_seconds=1.0)
    with in_thread(lambda: dispatcher.run(JOB, 0, INTERACTIVE)):
        wait_until(lambda: store.shard()["status"] == "done")
        wait_briefly()
        wake_ups.put(message)
        wake_ups.put(message, BATCH)
        wait_until(lambda: len(logged.of("shared.ledger.worker_ledger")) == 2)
        # A claim removes messages without reading them.
        wake_ups.put(message)
        wake_ups.send(1, 2)
    assert len(await pool.scores()) == 3
    assert (wake_ups.waiting(), wake_ups.waiting(BATCH)) == (0, 0)
    assert {(line["event"], line["queue"]) for line in logged.of("shared.ledger.worker_ledger")} == {
        ("skipped a message that cannot be read", queue_keys.queue(MODEL, work_class))
        for work_class in (INTERACTIVE, BATCH)
    }


async def test_an_undecodable_request_is_retried_later_and_other_shards_are_scored(
    pool: Pool, wake_ups: WakeUpSender, store: StoreView, redis_client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    await pool.submit("zero", "one")
    await pool.submit("a secret", job_id="job-2")
    redis_client.hset(job_keys.documents("job-2"), "0", '[{"text": 5, "note": "a secret"}]')
    wake_ups.send(0, job_id="job-2")
    wake_ups.send(1)
    with caplog.at_level(logging.ERROR):
        pool.run(ScriptedEngine())
    assert len(await pool.scores()) == 2
    shard = store.shard(job_id="job-2")
    assert (shard["status"], shard["retries"]) == ("queued", "1")
    assert "a secret" not in caplog.text
    assert "cannot be decoded" in caplog.text


async def test_jobs_with_duplicate_messages_are_each_scored_once_and_the_counters_return_to_zero(
    pool: Pool, wake_ups: WakeUpSender, ledger: JobLedger, redis_client: Any
) -> None:
    class BatchCountingEngine(LexicalEngine):
        """Records the maximum number of concurrent batch shards."""

        def __init__(self) -> None:
            super().__init__()
            self.lock = threading.Lock()
            self.batch = self.most_batch = 0

        def score(self, batch: ScoringBatch, cancellation: Cancellation) -> BatchScores:
            is_batch = batch.priority >= 1000
            with self.lock:
                self.batch += is_batch
                self.most_batch = max(self.most_batch, self.batch)
            time.sleep(0.001)
            with self.lock:
                self.batch -= is_batch
            return super().score(batch, cancellation)

    jobs = [f"job-{number}" for number in range(150)]
    for number, job_id in enumerate(jobs):
        await pool.submit("a text", job_id=job_id, work_class=BATCH if number % 2 else INTERACTIVE)
    for _ in range(2):
        for number, job_id in enumerate(jobs):
            wake_ups.send(0, job_id=job_id, work_class=BATCH if number % 2 else INTERACTIVE)
    engine = BatchCountingEngine()
    leases = LeaseKeeper(pool.worker_ledger)
    dispatcher = make_dispatcher(pool.worker_ledger, engine, leases, concurrency=8, reserved=3, linger_seconds=0.2)
    dispatcher.run(jobs[0], 0, INTERACTIVE)
    assert set((await ledger.statuses(jobs)).values()) == {JobStatus.SUCCEEDED}
    assert {redis_client.hget(job_keys.shards(job_id), "0:finishes_accepted") for job_id in jobs} == {b"1"}
    assert 1 <= engine.most_batch <= 5
    assert leases.release_all() == 0
    assert dispatcher._running.total() == 0
