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
FAILURE = JobFailure("scoring_failed", "the engine gave up")


async def crash(ledger: JobLedger, worker: WorkerLedger, store: StoreView, shard: int = 0) -> list[WakeUp]:
    """A worker takes the shard and is never heard of again."""
    worker.claim(make_lease(shard))
    store.end_lease(shard)
    return await ledger.reconcile(MODEL)


class TestUnheardDoorbells:
    async def test_nothing_is_rung_for_before_its_time(self, ledger: JobLedger, store: StoreView) -> None:
        await ledger.submit(make_submission())
        store.drop_messages()
        assert 0 < store.due_in_seconds() <= RESEND_SECONDS
        assert await ledger.reconcile(MODEL) == []

    @pytest.mark.parametrize("work_class", WorkClass)
    async def test_an_unheard_doorbell_is_to_be_rung_again_in_its_queue(
        self, ledger: JobLedger, store: StoreView, work_class: WorkClass
    ) -> None:
        await ledger.submit(make_submission(shards=3, work_class=work_class))
        store.drop_messages()
        store.make_due(0, 2)
        rings = await ledger.reconcile(MODEL)
        assert rings == [WakeUp(JOB, 0, work_class), WakeUp(JOB, 2, work_class)]
        assert await ledger.reconcile(MODEL) == []

    async def test_every_further_time_comes_after_twice_the_wait(self, ledger: JobLedger, store: StoreView) -> None:
        await ledger.submit(make_submission())
        store.drop_messages()
        waits = []
        for _ in range(9):
            store.make_due()
            assert len(await ledger.reconcile(MODEL)) == 1
            waits.append(store.due_in_seconds())
        expected = [min(RESEND_SECONDS * 2**rings, MAX_RESEND_SECONDS) for rings in range(9)]
        # Measured a moment after it was set.
        assert waits == pytest.approx(expected, abs=0.9)
        assert expected[-1] == MAX_RESEND_SECONDS

    async def test_a_claim_makes_the_waits_short_again(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
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

    async def test_while_enough_doorbells_are_queued_no_more_are_rung(
        self, ledger: JobLedger, store: StoreView
    ) -> None:
        """The pool is busy, not deaf."""
        await ledger.submit(make_submission(shards=2))
        store.make_due(0, 1)
        assert await ledger.reconcile(MODEL) == []
        assert store.due_in_seconds() > 0
        assert "resends" not in store.shard()

    async def test_one_doorbell_too_few_is_not_enough(
        self, ledger: JobLedger, store: StoreView, redis_client: redis.Redis
    ) -> None:
        await ledger.submit(make_submission(shards=2))
        redis_client.rpop(queue_keys.queue(MODEL, INTERACTIVE))
        store.make_due(0)
        assert await ledger.reconcile(MODEL) == [WakeUp(JOB, 0, INTERACTIVE)]

    async def test_the_doorbells_of_both_queues_count(self, ledger: JobLedger, store: StoreView) -> None:
        await ledger.submit(make_submission("job-1", work_class=INTERACTIVE))
        await ledger.submit(make_submission("job-2", work_class=BATCH))
        store.make_due(job_id="job-1")
        store.make_due(job_id="job-2")
        assert await ledger.reconcile(MODEL) == []

    async def test_a_shard_that_waits_for_its_turn_is_left_alone(self, ledger: JobLedger, store: StoreView) -> None:
        await ledger.submit(make_submission(shards=3, enqueued=1))
        store.drop_messages()
        store.make_due(0)
        assert await ledger.reconcile(MODEL) == [WakeUp(JOB, 0, INTERACTIVE)]
        assert len(store.outstanding()) == 3

    async def test_what_is_outstanding_of_a_job_that_is_gone_is_forgotten(
        self, ledger: JobLedger, store: StoreView, redis_client: redis.Redis
    ) -> None:
        """As after a job's ceiling, or an eviction by hand."""
        await ledger.submit(make_submission())
        redis_client.delete(job_keys.job(JOB))
        store.drop_messages()
        store.make_due()
        assert await ledger.reconcile(MODEL) == []
        assert store.outstanding() == []

    async def test_another_models_pool_is_not_looked_at(self, ledger: JobLedger, store: StoreView) -> None:
        await ledger.submit(make_submission())
        store.drop_messages()
        store.make_due()
        assert await ledger.reconcile("another-model") == []
        assert len(await ledger.reconcile(MODEL)) == 1


class TestCrashes:
    async def test_a_lease_that_is_renewed_is_left_alone(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission())
        worker.claim(make_lease())
        store.make_due()
        assert await ledger.reconcile(MODEL) == []
        assert store.shard()["status"] == "leased"
        # The next look comes when the lease would be over.
        assert store.due_in_seconds() == pytest.approx(store.remaining_seconds(job_keys.lease(JOB, 0)), abs=0.5)

    async def test_a_lease_that_ran_out_is_a_crash_and_rung_for_at_once(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission(shards=2))
        assert await crash(ledger, worker, store, 1) == [WakeUp(JOB, 1, INTERACTIVE)]
        assert store.shard(1) == {"status": "queued", "crashes": "1", "resends": "0"}
        assert 0 < store.due_in_seconds(1) <= RESEND_AFTER_CRASH_SECONDS
        assert (await read_record(ledger)).status is JobStatus.RUNNING

    async def test_who_has_lost_a_worker_is_not_kept_waiting_long_for_another(
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

    async def test_also_when_many_doorbells_are_queued(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission(shards=2))
        assert len(store.messages()) == 2
        assert await crash(ledger, worker, store) == [WakeUp(JOB, 0, INTERACTIVE)]

    async def test_it_is_noticed_when_the_lease_ends_by_itself(
        self, ledger: JobLedger, store: StoreView, redis_client: redis.Redis
    ) -> None:
        await ledger.submit(make_submission())
        WorkerLedger(redis_client, MODEL, lease_seconds=0.001).claim(make_lease())
        for _ in range(500):
            if await ledger.reconcile(MODEL):
                break
        assert store.shard()["crashes"] == "1"

    async def test_what_was_in_work_at_several_crashes_is_tried_again_alone(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission(shards=2))
        verdicts = []
        for _ in range(ALONE_AFTER_CRASHES + 1):
            verdicts.append(worker.claim(make_lease(), alone=False).verdict)
            await crash(ledger, worker, store)
        assert verdicts == [ClaimVerdict.RUN] * ALONE_AFTER_CRASHES + [ClaimVerdict.ALONE]
        assert worker.claim(make_lease(1), alone=False).verdict is ClaimVerdict.RUN

    async def test_over_its_budget_the_job_fails_and_leaves_a_note(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission(shards=2))
        for _ in range(MAX_CRASHES - 1):
            assert await crash(ledger, worker, store, 1) == [WakeUp(JOB, 1, INTERACTIVE)]
        assert store.dead_letters() == []
        assert await crash(ledger, worker, store, 1) == []

        record = await read_record(ledger)
        assert (record.status, record.failure) == (JobStatus.FAILED, CRASHED)
        (note,) = store.dead_letters()
        assert (note["job"], note["shard"], note["model"], note["crashes"]) == (JOB, 1, MODEL, MAX_CRASHES)
        assert note["failure"] == {"code": CRASHED.code, "message": CRASHED.message}
        assert store.outstanding() == []

    async def test_giving_back_and_retrying_are_no_crashes(
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

    async def test_of_two_rounds_at_once_one_counts(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission())
        worker.claim(make_lease())
        store.end_lease()
        rings = [await ledger.reconcile(MODEL), await ledger.reconcile(MODEL)]
        assert rings == [[WakeUp(JOB, 0, INTERACTIVE)], []]
        assert store.shard()["crashes"] == "1"


class TestExpire:
    async def test_a_job_past_its_deadline_ends_and_no_other(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        for job_id in ("job-1", "job-2", "job-3"):
            await ledger.submit(make_submission(job_id))
        worker.claim(make_lease(job_id="job-2"))
        for job_id in ("job-1", "job-2"):
            store.pass_deadline(job_id)
        assert await ledger.expire(MODEL) == 2
        states = await ledger.statuses(["job-1", "job-2", "job-3"])
        assert list(states.values()) == [JobStatus.EXPIRED, JobStatus.EXPIRED, JobStatus.QUEUED]
        assert (store.outstanding(), store.deadlines()) == (["job-3/0"], ["job-3"])
        assert await ledger.expire(MODEL) == 0

    async def test_what_has_ended_or_gone_is_no_longer_looked_at(
        self, ledger: JobLedger, store: StoreView, redis_client: redis.Redis
    ) -> None:
        redis_client.zadd(pool_keys.deadlines(MODEL), {"job-x": 1})
        await ledger.submit(make_submission())
        await ledger.cancel(await read_record(ledger))
        redis_client.zadd(pool_keys.deadlines(MODEL), {JOB: 1})
        assert await ledger.expire(MODEL) == 0
        assert store.deadlines() == []
        assert (await read_record(ledger)).status is JobStatus.CANCELED


class TestRevive:
    async def test_what_is_done_stays_done_and_the_rest_starts_over(
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

    async def test_its_keys_live_as_those_of_an_unfinished_job(
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

    async def test_its_budgets_are_fresh(self, ledger: JobLedger, worker: WorkerLedger, store: StoreView) -> None:
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

    async def test_a_token_of_its_former_life_counts_for_nothing(self, ledger: JobLedger, worker: WorkerLedger) -> None:
        await ledger.submit(make_submission(shards=2))
        worker.claim(make_lease(0, "old"))
        worker.claim(make_lease(1))
        worker.fail(make_lease(1), FAILURE)
        await ledger.retry_failed(await read_record(ledger), 60)
        assert worker.finish(make_lease(0, "old"), make_scores(), INTERACTIVE) is FinishVerdict.STALE

    async def test_a_revived_job_that_nobody_rang_for_is_found(self, ledger: JobLedger, worker: WorkerLedger) -> None:
        await ledger.submit(make_submission())
        worker.claim(make_lease())
        worker.fail(make_lease(), FAILURE)
        StoreView(worker._client).drop_messages()
        await ledger.retry_failed(await read_record(ledger), 60)
        assert await ledger.reconcile(MODEL) == [WakeUp(JOB, 0, INTERACTIVE)]

    async def test_only_a_failed_job_can_be_revived(self, ledger: JobLedger, worker: WorkerLedger) -> None:
        for job_id in ("job-1", "job-2", "job-3"):
            await ledger.submit(make_submission(job_id))
        worker.claim(make_lease())
        worker.finish(make_lease(), make_scores(), INTERACTIVE)
        await ledger.cancel(await read_record(ledger, "job-2"))
        gone = await read_record(ledger, "job-3")
        assert await ledger.retry_failed(gone, 60) is None
        await ledger.delete(gone)
        for record in (await read_record(ledger, "job-1"), await read_record(ledger, "job-2"), gone):
            assert await ledger.retry_failed(record, 60) is None
        assert list((await ledger.statuses(["job-1", "job-2", "job-3"])).values()) == [
            JobStatus.SUCCEEDED,
            JobStatus.CANCELED,
            None,
        ]
