"""Another program has changed or deleted keys of the ledger: only the affected job fails."""

from collections.abc import Callable
from typing import Any

import pytest
import redis

from shared.contracts import WorkClass
from shared.errors import StoreDamaged, StoreUnavailable
from shared.keys import job_keys, pool_keys, queue_keys
from shared.ledger.job_ledger import JobLedger
from shared.ledger.job_record import JobFailure, JobStatus
from shared.ledger.verdicts import ClaimRequest, ClaimVerdict, FinishVerdict, FreeSlots, RenewVerdict
from shared.ledger.worker_ledger import WorkerLedger
from shared.queue.messages import WakeUp
from shared.store.client import is_damage, store_errors
from tests.shared.support import (
    JOB,
    MODEL,
    OWNER,
    StoreView,
    make_lease,
    make_scores,
    make_submission,
    out_of_memory,
    read_record,
)

LOST = "the job store has lost a part of this job; send it again"
GOOD = "job-2"
PARTS = (job_keys.job, job_keys.shards, job_keys.documents, job_keys.request)


def damage(client: Any, key: str) -> None:
    """Replace the key by one of another type."""
    client.delete(key)
    client.set(key, "foreign value") if key != job_keys.request(JOB) else client.hset(key, "foreign", "value")


@pytest.fixture
async def two_jobs(ledger: JobLedger, store: StoreView) -> None:
    for job_id in (JOB, GOOD):
        await ledger.submit(make_submission(job_id))
    store.drop_messages()


@pytest.mark.usefixtures("two_jobs")
class TestDamagedJob:
    @pytest.mark.parametrize("part", PARTS)
    def test_it_is_not_claimed_and_other_jobs_are(
        self, worker: WorkerLedger, store: StoreView, redis_client: Any, part: Callable[[str], str]
    ) -> None:
        damage(redis_client, part(JOB))
        _, claimed = worker.finish_and_claim([], ClaimRequest("worker-1", "token", FreeSlots(4, 4)))
        assert [shard.lease.job_id for shard in claimed] == [GOOD]
        assert store.outstanding() == [f"{GOOD}/0"]
        assert store.deadlines() == [GOOD]
        assert worker.claim(make_lease()).verdict in (ClaimVerdict.ENDED, ClaimVerdict.GONE)

    @pytest.mark.parametrize("part", [job_keys.job, job_keys.shards])
    def test_its_lease_cannot_be_renewed(
        self, worker: WorkerLedger, store: StoreView, redis_client: Any, part: Callable[[str], str]
    ) -> None:
        leases = [make_lease(), make_lease(job_id=GOOD)]
        for lease in leases:
            worker.claim(lease)
        damage(redis_client, part(JOB))
        assert worker.renew(leases) == [RenewVerdict.ENDED, RenewVerdict.LIVE]
        assert store.lease() is None

    @pytest.mark.parametrize("part", [job_keys.job, job_keys.shards, job_keys.results])
    def test_its_scores_are_rejected_and_those_of_other_jobs_accepted(
        self, worker: WorkerLedger, store: StoreView, redis_client: Any, part: Callable[[str], str]
    ) -> None:
        leases = [make_lease(), make_lease(job_id=GOOD)]
        for lease in leases:
            worker.claim(lease)
        damage(redis_client, part(JOB))
        verdicts, _ = worker.finish_and_claim(
            [(lease, make_scores(), WorkClass.INTERACTIVE) for lease in leases],
            ClaimRequest("worker-1", "token", FreeSlots(4, 4)),
        )
        assert verdicts == [FinishVerdict.ENDED, FinishVerdict.ACCEPTED]
        assert store.outstanding() == []

    def test_it_has_ended_for_other_reports(self, worker: WorkerLedger, redis_client: Any) -> None:
        lease, failure = make_lease(), JobFailure("scoring_failed", "no")
        worker.claim(lease)
        reports: list[Callable[[], FinishVerdict]] = [
            lambda: worker.fail(lease, failure),
            lambda: worker.retry_later(lease, 1.0, failure),
            lambda: worker.release(lease, WorkClass.INTERACTIVE),
        ]
        for report in reports:
            damage(redis_client, job_keys.job(JOB))
            assert report() is FinishVerdict.ENDED

    @pytest.mark.parametrize("part", [job_keys.job, job_keys.shards])
    async def test_the_reconciler_discards_it_and_checks_the_others(
        self, ledger: JobLedger, store: StoreView, redis_client: Any, part: Callable[[str], str], published_ends: Any
    ) -> None:
        damage(redis_client, part(JOB))
        store.make_due()
        store.make_due(job_id=GOOD)
        assert await ledger.reconcile(MODEL) == [WakeUp(GOOD, 0, WorkClass.INTERACTIVE)]
        assert store.outstanding() == [f"{GOOD}/0"]
        # Nothing is published: waiting callers find that the job does not exist.
        assert published_ends() == []

    async def test_other_jobs_expire(self, ledger: JobLedger, store: StoreView, redis_client: Any) -> None:
        store.pass_deadline()
        store.pass_deadline(GOOD)
        damage(redis_client, job_keys.job(JOB))
        assert await ledger.expire(MODEL) == 1
        assert (await read_record(ledger, GOOD)).status is JobStatus.EXPIRED
        assert store.deadlines() == []

    async def test_reading_it_raises_store_damaged(self, ledger: JobLedger, redis_client: Any) -> None:
        redis_client.hset(job_keys.job(JOB), "status", "nonsense")
        assert await ledger.statuses([JOB, GOOD, "job-3"]) == {JOB: None, GOOD: JobStatus.QUEUED, "job-3": None}
        with pytest.raises(StoreDamaged):
            await ledger.read(JOB)
        damage(redis_client, job_keys.job(JOB))
        assert await ledger.statuses([JOB, GOOD]) == {JOB: None, GOOD: JobStatus.QUEUED}
        with pytest.raises(StoreDamaged):
            await ledger.read(JOB)
        redis_client.set(job_keys.request(GOOD), "not JSON")
        with pytest.raises(StoreDamaged):
            await ledger.read_request(GOOD)


class TestMissingPart:
    @pytest.mark.parametrize("part", PARTS[1:])
    async def test_a_claim_fails_the_job_with_an_explanation(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView, redis_client: Any, part: Callable[[str], str]
    ) -> None:
        await ledger.submit(make_submission(shards=2))
        redis_client.delete(part(JOB))
        assert worker.claim(make_lease()).verdict is ClaimVerdict.ENDED
        record = await read_record(ledger)
        assert (record.status, record.failure) == (JobStatus.FAILED, JobFailure("scoring_failed", LOST))
        assert store.outstanding() == []

    async def test_the_reconciler_fails_an_unclaimed_job(
        self, ledger: JobLedger, store: StoreView, redis_client: Any
    ) -> None:
        await ledger.submit(make_submission())
        redis_client.delete(job_keys.shards(JOB))
        store.make_due()
        assert await ledger.reconcile(MODEL) == []
        assert (await read_record(ledger)).status is JobStatus.FAILED

    async def test_an_unknown_shard_status_fails_the_job(
        self, ledger: JobLedger, store: StoreView, redis_client: Any
    ) -> None:
        await ledger.submit(make_submission())
        redis_client.hset(job_keys.shards(JOB), "0:status", "nonsense")
        store.make_due()
        assert await ledger.reconcile(MODEL) == []
        assert (await read_record(ledger)).status is JobStatus.FAILED

    @pytest.mark.parametrize(("shards", "status"), [(1, JobStatus.SUCCEEDED), (2, JobStatus.FAILED)])
    async def test_a_missing_counter_fails_the_job_unless_all_scores_exist(
        self, ledger: JobLedger, worker: WorkerLedger, redis_client: Any, shards: int, status: JobStatus
    ) -> None:
        """A job of one shard has all its scores after the first finish."""
        await ledger.submit(make_submission(shards=shards))
        worker.claim(make_lease())
        redis_client.hdel(job_keys.job(JOB), "shards_left")
        worker.finish(make_lease(), make_scores(0.5), WorkClass.INTERACTIVE)
        assert (await read_record(ledger)).status is status

    async def test_missing_scores_fail_the_job(
        self, ledger: JobLedger, worker: WorkerLedger, redis_client: Any
    ) -> None:
        await ledger.submit(make_submission(shards=2))
        for shard in range(2):
            redis_client.delete(job_keys.results(JOB))
            worker.claim(make_lease(shard))
            worker.finish(make_lease(shard), make_scores(0.5), WorkClass.INTERACTIVE)
        assert (await read_record(ledger)).status is JobStatus.FAILED

    async def test_a_shard_number_beyond_the_last_is_gone(self, ledger: JobLedger, worker: WorkerLedger) -> None:
        await ledger.submit(make_submission())
        assert worker.claim(make_lease(7)).verdict is ClaimVerdict.GONE
        assert (await read_record(ledger)).status is JobStatus.QUEUED


class TestOwnersKeys:
    @pytest.mark.parametrize("key", [pool_keys.order(MODEL, WorkClass.INTERACTIVE, OWNER), job_keys.owned(OWNER)])
    async def test_a_key_of_the_wrong_type_does_not_affect_new_jobs(
        self, ledger: JobLedger, worker: WorkerLedger, redis_client: Any, key: str
    ) -> None:
        redis_client.set(key, "foreign")
        await ledger.submit(make_submission())
        _, claimed = worker.finish_and_claim([], ClaimRequest("worker-1", "token", FreeSlots(1, 0)))
        assert [shard.lease.job_id for shard in claimed] == [JOB]


class TestRepair:
    async def test_an_undamaged_job_is_unchanged(self, ledger: JobLedger, redis_client: Any) -> None:
        await ledger.submit(make_submission(shards=3, enqueued=1))
        before = redis_client.zrange(pool_keys.outstanding(MODEL), 0, -1, withscores=True)
        redis_client.zadd(pool_keys.open_jobs(MODEL, WorkClass.INTERACTIVE), {JOB: 1})
        await ledger.repair(MODEL)
        assert redis_client.zrange(pool_keys.outstanding(MODEL), 0, -1, withscores=True) == before

    @pytest.mark.parametrize("enqueued", [1, 2])
    async def test_missing_outstanding_shards_are_restored(
        self, ledger: JobLedger, store: StoreView, redis_client: Any, enqueued: int
    ) -> None:
        await ledger.submit(make_submission(shards=2, enqueued=enqueued))
        store.drop_messages()
        redis_client.delete(pool_keys.outstanding(MODEL))
        redis_client.zadd(pool_keys.open_jobs(MODEL, WorkClass.INTERACTIVE), {JOB: 1, "job-missing": 1})
        await ledger.repair(MODEL)
        assert store.outstanding() == [f"{JOB}/0", f"{JOB}/1"]
        assert [wake_up.shard for wake_up in await ledger.reconcile(MODEL)] == list(range(enqueued))
        assert redis_client.zrange(pool_keys.open_jobs(MODEL, WorkClass.INTERACTIVE), 0, -1) == [JOB.encode()]

    @pytest.mark.parametrize(
        "key",
        [
            pool_keys.outstanding(MODEL),
            pool_keys.deadlines(MODEL),
            pool_keys.load(MODEL),
            queue_keys.queue(MODEL, WorkClass.INTERACTIVE),
            pool_keys.open_jobs(MODEL, WorkClass.INTERACTIVE),
            pool_keys.turns(MODEL, WorkClass.INTERACTIVE),
            pool_keys.order(MODEL, WorkClass.INTERACTIVE, OWNER),
            pool_keys.backlog(MODEL, WorkClass.INTERACTIVE),
            pool_keys.workers(MODEL),
            job_keys.DEAD_LETTERS,
            *queue_keys.KOMBU_KEYS,
        ],
    )
    async def test_a_key_of_the_wrong_type_is_deleted(
        self, ledger: JobLedger, worker: WorkerLedger, redis_client: Any, key: str
    ) -> None:
        await ledger.submit(make_submission(GOOD))
        damage(redis_client, key)
        worker.finish_and_claim([], ClaimRequest("worker-1", "token", FreeSlots(1, 1)))
        await ledger.repair(MODEL)
        assert redis_client.type(key) != b"string"
        await ledger.submit(make_submission())
        await ledger.expire(MODEL)
        await ledger.reconcile(MODEL)
        worker.claim(make_lease())
        assert worker.finish(make_lease(), make_scores(), WorkClass.INTERACTIVE) is FinishVerdict.ACCEPTED

    async def test_repair_works_when_redis_is_full(
        self, ledger: JobLedger, store: StoreView, redis_client: Any
    ) -> None:
        await ledger.submit(make_submission())
        redis_client.delete(pool_keys.outstanding(MODEL))
        redis_client.zadd(pool_keys.open_jobs(MODEL, WorkClass.INTERACTIVE), {JOB: 1})
        with out_of_memory(redis_client):
            await ledger.repair(MODEL)
        assert store.outstanding() == [f"{JOB}/0"]


class TestIsDamage:
    def test_a_wrong_type_and_a_script_that_fails_on_it_are_damage(self, redis_client: Any) -> None:
        redis_client.set("text", "text")
        calls: list[Callable[[], Any]] = [
            lambda: redis_client.hget("text", "field"),
            lambda: redis_client.incr("text"),
            lambda: redis_client.eval("return redis.call('HGET', KEYS[1], 'field')", 1, "text"),
            lambda: redis_client.eval("return 1 + redis.call('GET', KEYS[1])", 1, "text"),
        ]
        for call in calls:
            with pytest.raises(redis.ResponseError) as caught:
                call()
            assert is_damage(caught.value)
            with pytest.raises(StoreDamaged), store_errors():
                raise caught.value

    @pytest.mark.parametrize("write", ["return redis.call('SET', KEYS[1], '')", None])
    def test_a_redis_that_refuses_writes_is_not_damage(self, redis_client: Any, write: str | None) -> None:
        def call() -> None:
            redis_client.eval(write, 1, "text") if write else redis_client.set("text", "")

        with out_of_memory(redis_client), pytest.raises(redis.ResponseError) as full:
            call()
        redis_client.replicaof("127.0.0.1", 1)
        try:
            with pytest.raises(redis.ResponseError) as replica:
                call()
        finally:
            redis_client.replicaof("NO", "ONE")
        for caught in (full, replica):
            assert not is_damage(caught.value)
            with pytest.raises(StoreUnavailable) as raised, store_errors():
                raise caught.value
            assert type(raised.value) is StoreUnavailable

    async def test_no_job_is_discarded_while_redis_refuses_writes(
        self, ledger: JobLedger, store: StoreView, redis_client: Any
    ) -> None:
        await ledger.submit(make_submission())
        store.make_due()
        store.pass_deadline()
        redis_client.replicaof("127.0.0.1", 1)
        try:
            for check in (ledger.repair, ledger.expire, ledger.reconcile):
                with pytest.raises(StoreUnavailable) as caught:
                    await check(MODEL)
                assert type(caught.value) is StoreUnavailable
        finally:
            redis_client.replicaof("NO", "ONE")
        assert (await read_record(ledger)).status is JobStatus.QUEUED
