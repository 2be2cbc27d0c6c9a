import threading
from typing import Any

import pytest
import redis

from shared.contracts import WorkClass
from shared.keys import job_keys
from shared.ledger.job_ledger import JobLedger
from shared.ledger.job_record import JobFailure, JobStatus
from shared.ledger.limits import LEASE_SECONDS, MAX_DEAD_LETTERS, MAX_TRANSIENT_ERRORS, RESEND_SECONDS
from shared.ledger.verdicts import ClaimVerdict, FinishVerdict, RenewVerdict
from shared.ledger.worker_ledger import WorkerLedger
from shared.queue.messages import WakeUp
from tests.shared.support import (
    JOB,
    MODEL,
    StoreView,
    make_lease,
    make_scores,
    make_submission,
    read_message,
    read_record,
)

INTERACTIVE, BATCH = WorkClass.INTERACTIVE, WorkClass.BATCH
BUSY = JobFailure("scoring_failed", "the engine is busy")


class TestRenew:
    async def test_a_live_lease_gets_its_whole_time_again(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView, redis_client: redis.Redis
    ) -> None:
        await ledger.submit(make_submission())
        worker.claim(make_lease())
        redis_client.pexpire(job_keys.lease(JOB, 0), 1000)
        assert worker.renew([make_lease()]) == [RenewVerdict.LIVE]
        assert 1 < store.remaining_seconds(job_keys.lease(JOB, 0)) <= LEASE_SECONDS

    async def test_many_are_told_each_for_itself_and_in_order(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        for job_id in ("job-1", "job-2"):
            await ledger.submit(make_submission(job_id, shards=2))
        leases = [make_lease(0), make_lease(1), make_lease(0, job_id="job-2"), make_lease(0, job_id="job-x")]
        for lease in leases:
            worker.claim(lease)
        store.end_lease(1)
        await ledger.reconcile(MODEL)
        await ledger.cancel(await read_record(ledger, "job-2"))
        verdicts = [RenewVerdict.LIVE, RenewVerdict.LOST, RenewVerdict.ENDED, RenewVerdict.ENDED]
        assert worker.renew(leases) == verdicts
        assert worker.renew(leases[::-1]) == verdicts[::-1]

    def test_nothing_to_renew_is_no_work(self, worker: WorkerLedger) -> None:
        assert worker.renew([]) == []

    async def test_a_lease_that_ran_out_lives_again_while_nobody_has_taken_the_shard_away(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission())
        worker.claim(make_lease())
        store.end_lease()
        assert worker.renew([make_lease()]) == [RenewVerdict.LIVE]
        assert await ledger.reconcile(MODEL) == []
        assert worker.finish(make_lease(), make_scores(), INTERACTIVE) is FinishVerdict.ACCEPTED

    async def test_a_lost_shard_is_lost_also_when_somebody_else_holds_it(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission())
        worker.claim(make_lease(token="first"))
        store.end_lease()
        await ledger.reconcile(MODEL)
        worker.claim(make_lease(token="second"))
        verdicts = worker.renew([make_lease(token="first"), make_lease(token="second")])
        assert verdicts == [RenewVerdict.LOST, RenewVerdict.LIVE]
        assert store.lease() == "second"

    async def test_past_the_deadline_it_ends_the_job_as_expired(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission())
        worker.claim(make_lease())
        store.pass_deadline()
        assert worker.renew([make_lease()]) == [RenewVerdict.ENDED]
        assert (await read_record(ledger)).status is JobStatus.EXPIRED
        assert (store.lease(), store.outstanding()) == (None, [])

    async def test_a_shard_that_is_done_is_not_held_again(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission(shards=2))
        worker.claim(make_lease())
        worker.finish(make_lease(), make_scores(), INTERACTIVE)
        assert worker.renew([make_lease()]) == [RenewVerdict.LOST]
        assert store.lease() is None


class TestGiveBack:
    @pytest.mark.parametrize("work_class", WorkClass)
    async def test_somebody_else_is_rung_for_at_once_and_nothing_is_charged(
        self, ledger: JobLedger, enqueueing_worker: WorkerLedger, store: StoreView, work_class: WorkClass
    ) -> None:
        await ledger.submit(make_submission(shards=2, work_class=work_class))
        enqueueing_worker.claim(make_lease(1))
        assert enqueueing_worker.release(make_lease(1), work_class) is FinishVerdict.ACCEPTED

        # It was its turn already: it comes before what is new.
        first, *others = store.messages(work_class)
        assert read_message(first) == (JOB, 1)
        assert len(others) == 2
        shard = store.shard(1)
        assert shard["status"] == "queued"
        assert not {"crashes", "retries", "token", "alone"} & set(shard)
        assert store.lease(1) is None
        assert 0 < store.due_in_seconds(1) <= RESEND_SECONDS
        assert enqueueing_worker.claim(make_lease(1, "another"), alone=False).verdict is ClaimVerdict.RUN

    async def test_it_may_be_given_back_for_ever(self, ledger: JobLedger, worker: WorkerLedger) -> None:
        await ledger.submit(make_submission())
        for turn in range(20):
            lease = make_lease(token=f"token {turn}")
            assert worker.claim(lease).verdict is ClaimVerdict.RUN
            assert worker.release(lease, INTERACTIVE) is FinishVerdict.ACCEPTED
        assert (await read_record(ledger)).status is JobStatus.RUNNING

    async def test_it_is_given_back_once(
        self, ledger: JobLedger, enqueueing_worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission())
        store.drop_messages()
        enqueueing_worker.claim(make_lease())
        enqueueing_worker.release(make_lease(), INTERACTIVE)
        assert enqueueing_worker.release(make_lease(), INTERACTIVE) is FinishVerdict.STALE
        assert len(store.messages()) == 1

    async def test_after_the_end_nobody_wants_it_back(
        self, ledger: JobLedger, enqueueing_worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission())
        store.drop_messages()
        enqueueing_worker.claim(make_lease())
        await ledger.cancel(await read_record(ledger))
        assert enqueueing_worker.release(make_lease(), INTERACTIVE) is FinishVerdict.ENDED
        assert enqueueing_worker.release(make_lease(job_id="job-x"), INTERACTIVE) is FinishVerdict.ENDED
        assert store.messages() == []


class TestRetryLater:
    async def test_it_rests_and_is_counted(
        self, ledger: JobLedger, enqueueing_worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission())
        store.drop_messages()
        enqueueing_worker.claim(make_lease())
        assert enqueueing_worker.retry_later(make_lease(), 2.0, BUSY) is FinishVerdict.ACCEPTED
        shard = store.shard()
        assert (shard["status"], shard["retries"]) == ("queued", "1")
        assert "crashes" not in shard
        assert 1 < store.due_in_seconds() <= 2
        # Nobody is rung for now; the reconciler will, when the rest is over.
        assert store.messages() == []
        assert await ledger.reconcile(MODEL) == []
        store.make_due()
        assert await ledger.reconcile(MODEL) == [WakeUp(JOB, 0, INTERACTIVE)]

    async def test_over_its_budget_the_job_fails_and_leaves_a_note(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission(shards=2))
        verdicts = []
        for turn in range(MAX_TRANSIENT_ERRORS + 1):
            assert store.dead_letters() == []
            lease = make_lease(1, f"token {turn}")
            worker.claim(lease)
            verdicts.append(worker.retry_later(lease, 1.0, BUSY))
        assert verdicts == [FinishVerdict.ACCEPTED] * MAX_TRANSIENT_ERRORS + [FinishVerdict.FAILED]

        record = await read_record(ledger)
        assert (record.status, record.failure) == (JobStatus.FAILED, BUSY)
        (note,) = store.dead_letters()
        assert abs(note.pop("at_ms") - store.now_ms()) < 60_000
        assert note == {
            "job": JOB,
            "shard": 1,
            "model": MODEL,
            "failure": {"code": "scoring_failed", "message": "the engine is busy"},
            "crashes": 0,
            "retries": MAX_TRANSIENT_ERRORS + 1,
        }

    async def test_every_shard_has_a_budget_of_its_own(self, ledger: JobLedger, worker: WorkerLedger) -> None:
        await ledger.submit(make_submission(shards=2))
        for shard in (0, 1):
            for _ in range(MAX_TRANSIENT_ERRORS):
                worker.claim(make_lease(shard))
                assert worker.retry_later(make_lease(shard), 1.0, BUSY) is FinishVerdict.ACCEPTED
        assert (await read_record(ledger)).status is JobStatus.RUNNING

    async def test_the_notes_are_the_newest_ones_and_not_too_many(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView, redis_client: Any
    ) -> None:
        redis_client.lpush(job_keys.DEAD_LETTERS, *(f'{{"job": "old-{number}"}}' for number in range(MAX_DEAD_LETTERS)))
        await ledger.submit(make_submission())
        for _ in range(MAX_TRANSIENT_ERRORS + 1):
            worker.claim(make_lease())
            worker.retry_later(make_lease(), 1.0, BUSY)
        notes = store.dead_letters()
        assert len(notes) == MAX_DEAD_LETTERS
        assert (notes[0]["job"], notes[1]["job"], notes[-1]["job"]) == (JOB, f"old-{MAX_DEAD_LETTERS - 1}", "old-1")

    async def test_what_can_never_be_scored_is_no_matter_of_a_budget(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission())
        worker.claim(make_lease())
        worker.fail(make_lease(), BUSY)
        assert store.dead_letters() == []


async def test_of_many_who_claim_at_once_one_gets_the_shard(ledger: JobLedger, worker: WorkerLedger) -> None:
    await ledger.submit(make_submission())
    together = threading.Barrier(8)
    verdicts: list[ClaimVerdict] = []

    def claim(number: int) -> None:
        together.wait(timeout=10)
        verdicts.append(worker.claim(make_lease(token=f"token {number}")).verdict)

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert sorted(verdicts) == [ClaimVerdict.HELD] * 7 + [ClaimVerdict.RUN]
