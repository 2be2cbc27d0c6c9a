import pytest
import redis

from shared.contracts import WorkClass
from shared.keys import job_keys, pool_keys, queue_keys
from shared.ledger.job_ledger import JobLedger
from shared.ledger.job_record import JobFailure, JobStatus
from shared.ledger.limits import (
    ALONE_AFTER_CRASHES,
    MAX_CRASHES,
    MAX_RESEND_SECONDS,
    MAX_TRANSIENT_ERRORS,
    RESEND_AFTER_CRASH_SECONDS,
    RESEND_SECONDS,
)
from shared.ledger.verdicts import ClaimVerdict, FinishVerdict
from shared.ledger.worker_ledger import WorkerLedger
from shared.queue.messages import WakeUp
from tests.shared.conftest import LIFETIMES
from tests.shared.support import (
    JOB,
    MODEL,
    OWNER,
    StoreView,
    make_lease,
    make_scores,
    make_submission,
    read_record,
)

INTERACTIVE, BATCH = WorkClass.INTERACTIVE, WorkClass.BATCH
CRASHED = JobFailure("scoring_failed", "the worker died 4 times while it scored this job")
FAILURE = JobFailure("scoring_failed", "the engine failed")


async def crash(ledger: JobLedger, worker: WorkerLedger, store: StoreView, shard: int = 0) -> list[WakeUp]:
    """A worker claims the shard and dies. Returns the wake-ups of the next reconciliation."""
    worker.claim(make_lease(shard))
    store.end_lease(shard)
    return await ledger.reconcile(MODEL)


class TestUnclaimedShards:
    async def test_no_message_is_sent_before_it_is_due(self, ledger: JobLedger, store: StoreView) -> None:
        await ledger.submit(make_submission())
        store.drop_messages()
        assert 0 < store.due_in_seconds() <= RESEND_SECONDS
        assert await ledger.reconcile(MODEL) == []

    @pytest.mark.parametrize("work_class", WorkClass)
    async def test_the_message_of_an_unclaimed_shard_is_sent_again_in_its_queue(
        self, ledger: JobLedger, store: StoreView, work_class: WorkClass
    ) -> None:
        await ledger.submit(make_submission(shards=3, work_class=work_class))
        store.drop_messages()
        store.make_due(0, 2)
        wake_ups = await ledger.reconcile(MODEL)
        assert wake_ups == [WakeUp(JOB, 0, work_class), WakeUp(JOB, 2, work_class)]
        assert await ledger.reconcile(MODEL) == []

    async def test_each_resend_doubles_the_wait_up_to_a_maximum(self, ledger: JobLedger, store: StoreView) -> None:
        await ledger.submit(make_submission())
        store.drop_messages()
        waits = []
        for _ in range(9):
            store.make_due()
            assert len(await ledger.reconcile(MODEL)) == 1
            waits.append(store.due_in_seconds())
        expected = [min(RESEND_SECONDS * 2**resends, MAX_RESEND_SECONDS) for resends in range(9)]
        # Each wait is read shortly after it was set.
        assert waits == pytest.approx(expected, abs=0.9)
        assert expected[-1] == MAX_RESEND_SECONDS

    async def test_a_claim_resets_the_wait(self, ledger: JobLedger, worker: WorkerLedger, store: StoreView) -> None:
        await ledger.submit(make_submission())
        store.drop_messages()
        for _ in range(4):
            store.make_due()
            await ledger.reconcile(MODEL)
        worker.claim(make_lease())
        worker.release(make_lease(), INTERACTIVE)
        store.make_due()
        await ledger.reconcile(MODEL)
        assert store.due_in_seconds() == pytest.approx(RESEND_SECONDS, abs=0.9)

    async def test_no_message_is_sent_while_enough_are_queued(self, ledger: JobLedger, store: StoreView) -> None:
        """The pool is busy, and no message was lost."""
        await ledger.submit(make_submission(shards=2))
        store.make_due(0, 1)
        assert await ledger.reconcile(MODEL) == []
        assert store.due_in_seconds() > 0
        assert "resends" not in store.shard()

    async def test_one_message_less_than_shards_is_not_enough(
        self, ledger: JobLedger, store: StoreView, redis_client: redis.Redis
    ) -> None:
        await ledger.submit(make_submission(shards=2))
        redis_client.rpop(queue_keys.queue(MODEL, INTERACTIVE))
        store.make_due(0)
        assert await ledger.reconcile(MODEL) == [WakeUp(JOB, 0, INTERACTIVE)]

    async def test_the_messages_of_both_queues_count(self, ledger: JobLedger, store: StoreView) -> None:
        await ledger.submit(make_submission("job-1", work_class=INTERACTIVE))
        await ledger.submit(make_submission("job-2", work_class=BATCH))
        store.make_due(job_id="job-1")
        store.make_due(job_id="job-2")
        assert await ledger.reconcile(MODEL) == []

    async def test_a_shard_that_is_not_enqueued_yet_is_not_checked(self, ledger: JobLedger, store: StoreView) -> None:
        await ledger.submit(make_submission(shards=3, enqueued=1))
        store.drop_messages()
        store.make_due(0)
        assert await ledger.reconcile(MODEL) == [WakeUp(JOB, 0, INTERACTIVE)]
        assert len(store.outstanding()) == 3

    async def test_the_shards_of_a_job_that_does_not_exist_are_removed(
        self, ledger: JobLedger, store: StoreView, redis_client: redis.Redis
    ) -> None:
        """Its keys have expired, or somebody has deleted them."""
        await ledger.submit(make_submission())
        redis_client.delete(job_keys.job(JOB))
        store.drop_messages()
        store.make_due()
        assert await ledger.reconcile(MODEL) == []
        assert store.outstanding() == []

    async def test_only_the_pool_of_the_model_is_checked(self, ledger: JobLedger, store: StoreView) -> None:
        await ledger.submit(make_submission())
        store.drop_messages()
        store.make_due()
        assert await ledger.reconcile("another-model") == []
        assert len(await ledger.reconcile(MODEL)) == 1


class TestCrashes:
    async def test_a_renewed_lease_is_unchanged(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission())
        worker.claim(make_lease())
        store.make_due()
        assert await ledger.reconcile(MODEL) == []
        assert store.shard()["status"] == "leased"
        # The next check is due when the lease would expire.
        assert store.due_in_seconds() == pytest.approx(store.remaining_seconds(job_keys.lease(JOB, 0)), abs=0.5)

    async def test_an_expired_lease_counts_as_a_crash_and_the_shard_is_enqueued_at_once(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission(shards=2))
        assert await crash(ledger, worker, store, 1) == [WakeUp(JOB, 1, INTERACTIVE)]
        assert store.shard(1) == {"status": "queued", "crashes": "1", "resends": "0"}
        assert 0 < store.due_in_seconds(1) <= RESEND_AFTER_CRASH_SECONDS
        assert (await read_record(ledger)).status is JobStatus.RUNNING

    async def test_resends_after_a_crash_come_sooner(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission())
        store.drop_messages()
        await crash(ledger, worker, store)
        waits = [store.due_in_seconds()]
        for _ in range(3):
            store.make_due()
            await ledger.reconcile(MODEL)
            waits.append(store.due_in_seconds())
        expected = [RESEND_AFTER_CRASH_SECONDS * factor for factor in (1, 1, 2, 4)]
        assert waits == pytest.approx(expected, abs=0.4)

    async def test_a_crashed_shard_is_enqueued_even_when_enough_messages_are_queued(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission(shards=2))
        assert len(store.messages()) == 2
        assert await crash(ledger, worker, store) == [WakeUp(JOB, 0, INTERACTIVE)]

    async def test_a_lease_that_expires_by_itself_is_noticed(
        self, ledger: JobLedger, store: StoreView, redis_client: redis.Redis
    ) -> None:
        await ledger.submit(make_submission())
        WorkerLedger(redis_client, MODEL, lease_seconds=0.001).claim(make_lease())
        for _ in range(500):
            if await ledger.reconcile(MODEL):
                break
        assert store.shard()["crashes"] == "1"

    async def test_a_shard_that_crashed_several_times_must_run_alone(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission(shards=2))
        verdicts = []
        for _ in range(ALONE_AFTER_CRASHES + 1):
            verdicts.append(worker.claim(make_lease(), alone=False).verdict)
            await crash(ledger, worker, store)
        assert verdicts == [ClaimVerdict.RUN] * ALONE_AFTER_CRASHES + [ClaimVerdict.ALONE]
        assert worker.claim(make_lease(1), alone=False).verdict is ClaimVerdict.RUN

    async def test_a_job_over_its_crash_budget_fails_and_is_a_dead_letter(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission(shards=2))
        for _ in range(MAX_CRASHES - 1):
            assert await crash(ledger, worker, store, 1) == [WakeUp(JOB, 1, INTERACTIVE)]
        assert store.dead_letters() == []
        assert await crash(ledger, worker, store, 1) == []

        record = await read_record(ledger)
        assert (record.status, record.failure) == (JobStatus.FAILED, CRASHED)
        (letter,) = store.dead_letters()
        assert (letter["job"], letter["shard"], letter["model"], letter["crashes"]) == (JOB, 1, MODEL, MAX_CRASHES)
        assert letter["failure"] == {"code": CRASHED.code, "message": CRASHED.message}
        assert store.outstanding() == []

    async def test_releases_and_retries_are_not_crashes(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission())
        for _ in range(MAX_CRASHES - 1):
            await crash(ledger, worker, store)
        for _ in range(MAX_TRANSIENT_ERRORS):
            worker.claim(make_lease())
            worker.retry_later(make_lease(), 1.0, FAILURE)
        assert worker.claim(make_lease()).verdict is ClaimVerdict.RUN
        assert worker.finish(make_lease(), make_scores(), INTERACTIVE) is FinishVerdict.ACCEPTED
        assert (await read_record(ledger)).status is JobStatus.SUCCEEDED

    async def test_of_two_concurrent_rounds_one_counts_the_crash(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission())
        worker.claim(make_lease())
        store.end_lease()
        rounds = [await ledger.reconcile(MODEL), await ledger.reconcile(MODEL)]
        assert rounds == [[WakeUp(JOB, 0, INTERACTIVE)], []]
        assert store.shard()["crashes"] == "1"


class TestExpire:
    async def test_only_jobs_past_their_deadline_expire(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        for job_id in ("job-1", "job-2", "job-3"):
            await ledger.submit(make_submission(job_id))
        worker.claim(make_lease(job_id="job-2"))
        for job_id in ("job-1", "job-2"):
            store.pass_deadline(job_id)
        assert await ledger.expire(MODEL) == 2
        statuses = await ledger.statuses(["job-1", "job-2", "job-3"])
        assert list(statuses.values()) == [JobStatus.EXPIRED, JobStatus.EXPIRED, JobStatus.QUEUED]
        assert (store.outstanding(), store.deadlines()) == (["job-3/0"], ["job-3"])
        assert await ledger.expire(MODEL) == 0

    async def test_ended_and_missing_jobs_are_removed_from_the_index(
        self, ledger: JobLedger, store: StoreView, redis_client: redis.Redis
    ) -> None:
        redis_client.zadd(pool_keys.deadlines(MODEL), {"job-x": 1})
        await ledger.submit(make_submission())
        await ledger.cancel(await read_record(ledger))
        redis_client.zadd(pool_keys.deadlines(MODEL), {JOB: 1})
        assert await ledger.expire(MODEL) == 0
        assert store.deadlines() == []
        assert (await read_record(ledger)).status is JobStatus.CANCELED


class TestRetryOfFailedJobs:
    async def test_finished_shards_are_kept_and_the_others_start_again(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission(shards=4, enqueued=2))
        worker.claim(make_lease(0))
        worker.finish(make_lease(0), make_scores(0.5), INTERACTIVE)
        for _ in range(MAX_CRASHES):
            await crash(ledger, worker, store, 1)

        failed = await read_record(ledger)
        assert await ledger.retry_failed(failed, 60) == [WakeUp(JOB, shard, INTERACTIVE) for shard in (1, 2, 3)]
        record = await read_record(ledger)
        assert (record.status, record.failure, record.finished_ms, record.shards_left) == (JobStatus.QUEUED, None, 0, 3)
        assert record.deadline_ms == pytest.approx(store.now_ms() + 60_000, abs=5000)
        assert store.outstanding() == ["job-1/1", "job-1/2", "job-1/3"]
        assert store.deadlines() == [JOB]
        assert not {"crashes", "retries", "token", "alone"} & set(store.shard(1))

        for shard in (1, 2, 3):
            assert worker.claim(make_lease(shard, "again")).verdict is ClaimVerdict.RUN
            assert worker.finish(make_lease(shard, "again"), make_scores(shard), INTERACTIVE) is FinishVerdict.ACCEPTED
        record, shards = await ledger.read_finished(JOB)  # type: ignore[assignment]
        assert record.status is JobStatus.SUCCEEDED
        assert [shard.scores for shard in shards] == [[0.5], [1.0], [2.0], [3.0]]

    async def test_its_keys_have_the_lifetime_of_an_unfinished_job(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission(shards=2, idempotency="mine"))
        worker.claim(make_lease(0))
        worker.finish(make_lease(0), make_scores(), INTERACTIVE)
        worker.claim(make_lease(1))
        worker.fail(make_lease(1), FAILURE)
        await ledger.retry_failed(await read_record(ledger), 60)
        names = [
            job_keys.job(JOB),
            job_keys.request(JOB),
            job_keys.documents(JOB),
            job_keys.shards(JOB),
            job_keys.results(JOB),
        ]
        for name in (*names, job_keys.idempotency(OWNER, "mine")):
            assert LIFETIMES.result < store.remaining_seconds(name) <= LIFETIMES.unfinished

    async def test_its_budgets_start_again(self, ledger: JobLedger, worker: WorkerLedger, store: StoreView) -> None:
        await ledger.submit(make_submission())
        for _ in range(MAX_CRASHES):
            await crash(ledger, worker, store)
        await ledger.retry_failed(await read_record(ledger), 60)
        for _ in range(MAX_CRASHES - 1):
            await crash(ledger, worker, store)
        assert (await read_record(ledger)).status is JobStatus.RUNNING
        await crash(ledger, worker, store)
        assert (await read_record(ledger)).status is JobStatus.FAILED
        assert len(store.dead_letters()) == 2

    async def test_a_token_from_before_the_retry_is_stale(self, ledger: JobLedger, worker: WorkerLedger) -> None:
        await ledger.submit(make_submission(shards=2))
        worker.claim(make_lease(0, "old"))
        worker.claim(make_lease(1))
        worker.fail(make_lease(1), FAILURE)
        await ledger.retry_failed(await read_record(ledger), 60)
        assert worker.finish(make_lease(0, "old"), make_scores(), INTERACTIVE) is FinishVerdict.STALE

    async def test_a_retried_job_without_messages_is_found_by_the_reconciler(
        self, ledger: JobLedger, worker: WorkerLedger
    ) -> None:
        await ledger.submit(make_submission())
        worker.claim(make_lease())
        worker.fail(make_lease(), FAILURE)
        StoreView(worker._client).drop_messages()
        await ledger.retry_failed(await read_record(ledger), 60)
        assert await ledger.reconcile(MODEL) == [WakeUp(JOB, 0, INTERACTIVE)]

    async def test_only_a_failed_job_can_be_retried(self, ledger: JobLedger, worker: WorkerLedger) -> None:
        for job_id in ("job-1", "job-2", "job-3"):
            await ledger.submit(make_submission(job_id))
        worker.claim(make_lease())
        worker.finish(make_lease(), make_scores(), INTERACTIVE)
        await ledger.cancel(await read_record(ledger, "job-2"))
        deleted = await read_record(ledger, "job-3")
        assert await ledger.retry_failed(deleted, 60) is None
        await ledger.delete(deleted)
        for record in (await read_record(ledger, "job-1"), await read_record(ledger, "job-2"), deleted):
            assert await ledger.retry_failed(record, 60) is None
        assert list((await ledger.statuses(["job-1", "job-2", "job-3"])).values()) == [
            JobStatus.SUCCEEDED,
            JobStatus.CANCELED,
            None,
        ]
