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
    async def test_a_live_lease_gets_its_full_time(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView, redis_client: redis.Redis
    ) -> None:
        await ledger.submit(make_submission())
        worker.claim(make_lease())
        redis_client.pexpire(job_keys.lease(JOB, 0), 1000)
        assert worker.renew([make_lease()]) == [RenewVerdict.LIVE]
        assert 1 < store.remaining_seconds(job_keys.lease(JOB, 0)) <= LEASE_SECONDS

    async def test_each_lease_has_its_own_verdict_in_order(
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

    def test_an_empty_list_is_accepted(self, worker: WorkerLedger) -> None:
        assert worker.renew([]) == []

    async def test_an_expired_lease_is_renewed_until_the_reconciler_requeues_the_shard(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission())
        worker.claim(make_lease())
        store.end_lease()
        assert worker.renew([make_lease()]) == [RenewVerdict.LIVE]
        assert await ledger.reconcile(MODEL) == []
        assert worker.finish(make_lease(), make_scores(), INTERACTIVE) is FinishVerdict.ACCEPTED

    async def test_a_shard_leased_by_another_worker_is_lost(
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

    async def test_a_renewal_past_the_deadline_expires_the_job(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission())
        worker.claim(make_lease())
        store.pass_deadline()
        assert worker.renew([make_lease()]) == [RenewVerdict.ENDED]
        assert (await read_record(ledger)).status is JobStatus.EXPIRED
        assert (store.lease(), store.outstanding()) == (None, [])

    async def test_the_lease_of_a_finished_shard_is_not_renewed(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission(shards=2))
        worker.claim(make_lease())
        worker.finish(make_lease(), make_scores(), INTERACTIVE)
        assert worker.renew([make_lease()]) == [RenewVerdict.LOST]
        assert store.lease() is None


class TestRelease:
    @pytest.mark.parametrize("work_class", WorkClass)
    async def test_a_released_shard_is_enqueued_at_once_without_a_charge(
        self, ledger: JobLedger, enqueueing_worker: WorkerLedger, store: StoreView, work_class: WorkClass
    ) -> None:
        await ledger.submit(make_submission(shards=2, work_class=work_class))
        enqueueing_worker.claim(make_lease(1))
        assert enqueueing_worker.release(make_lease(1), work_class) is FinishVerdict.ACCEPTED

        # It goes to the front: it was enqueued before.
        first, *others = store.messages(work_class)
        assert read_message(first) == (JOB, 1)
        assert len(others) == 2
        shard = store.shard(1)
        assert shard["status"] == "queued"
        assert not {"crashes", "retries", "token", "alone"} & set(shard)
        assert store.lease(1) is None
        assert 0 < store.due_in_seconds(1) <= RESEND_SECONDS
        assert enqueueing_worker.claim(make_lease(1, "another"), alone=False).verdict is ClaimVerdict.RUN

    async def test_a_shard_can_be_released_any_number_of_times(self, ledger: JobLedger, worker: WorkerLedger) -> None:
        await ledger.submit(make_submission())
        for number in range(20):
            lease = make_lease(token=f"token {number}")
            assert worker.claim(lease).verdict is ClaimVerdict.RUN
            assert worker.release(lease, INTERACTIVE) is FinishVerdict.ACCEPTED
        assert (await read_record(ledger)).status is JobStatus.RUNNING

    async def test_a_claim_is_released_once(
        self, ledger: JobLedger, enqueueing_worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission())
        store.drop_messages()
        enqueueing_worker.claim(make_lease())
        enqueueing_worker.release(make_lease(), INTERACTIVE)
        assert enqueueing_worker.release(make_lease(), INTERACTIVE) is FinishVerdict.STALE
        assert len(store.messages()) == 1

    async def test_a_shard_of_an_ended_job_is_not_enqueued(
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
    async def test_the_shard_waits_and_the_retry_is_counted(
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
        # The reconciler sends the message when the wait is over.
        assert store.messages() == []
        assert await ledger.reconcile(MODEL) == []
        store.make_due()
        assert await ledger.reconcile(MODEL) == [WakeUp(JOB, 0, INTERACTIVE)]

    async def test_a_job_over_its_retry_budget_fails_and_is_a_dead_letter(
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
        (letter,) = store.dead_letters()
        assert abs(letter.pop("at_ms") - store.now_ms()) < 60_000
        assert letter == {
            "job": JOB,
            "shard": 1,
            "model": MODEL,
            "failure": {"code": "scoring_failed", "message": "the engine is busy"},
            "crashes": 0,
            "retries": MAX_TRANSIENT_ERRORS + 1,
        }

    async def test_every_shard_has_its_own_budget(self, ledger: JobLedger, worker: WorkerLedger) -> None:
        await ledger.submit(make_submission(shards=2))
        for shard in (0, 1):
            for _ in range(MAX_TRANSIENT_ERRORS):
                worker.claim(make_lease(shard))
                assert worker.retry_later(make_lease(shard), 1.0, BUSY) is FinishVerdict.ACCEPTED
        assert (await read_record(ledger)).status is JobStatus.RUNNING

    async def test_the_dead_letter_list_keeps_the_newest_entries(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView, redis_client: Any
    ) -> None:
        redis_client.lpush(job_keys.DEAD_LETTERS, *(f'{{"job": "old-{number}"}}' for number in range(MAX_DEAD_LETTERS)))
        await ledger.submit(make_submission())
        for _ in range(MAX_TRANSIENT_ERRORS + 1):
            worker.claim(make_lease())
            worker.retry_later(make_lease(), 1.0, BUSY)
        letters = store.dead_letters()
        assert len(letters) == MAX_DEAD_LETTERS
        assert (letters[0]["job"], letters[1]["job"], letters[-1]["job"]) == (
            JOB,
            f"old-{MAX_DEAD_LETTERS - 1}",
            "old-1",
        )

    async def test_a_failure_is_not_a_dead_letter(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission())
        worker.claim(make_lease())
        worker.fail(make_lease(), BUSY)
        assert store.dead_letters() == []


async def test_one_of_several_concurrent_claims_succeeds(ledger: JobLedger, worker: WorkerLedger) -> None:
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
