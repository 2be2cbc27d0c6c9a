"""What happens when somebody else has written into our keys, or removed some: one job suffers, and nobody else."""

from collections.abc import Callable
from typing import Any

import pytest
import redis

from shared.contracts import WorkClass
from shared.errors import StoreDamaged, StoreUnavailable
from shared.keys import job_keys, pool_keys, queue_keys
from shared.ledger.job_ledger import JobLedger
from shared.ledger.job_record import JobFailure, JobStatus
from shared.ledger.verdicts import NO_FREE_SLOTS, ClaimVerdict, FinishVerdict, FreeSlots, RenewVerdict
from shared.ledger.worker_ledger import WorkerLedger
from shared.queue.messages import WakeUp
from shared.store.client import is_damage, store_errors
from tests.shared.support import (
    JOB,
    MODEL,
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


def spoil(client: Any, key: str) -> None:
    """Something else is there."""
    client.delete(key)
    client.set(key, "something else") if key != job_keys.request(JOB) else client.hset(key, "something", "else")


@pytest.fixture
async def two_jobs(ledger: JobLedger, store: StoreView) -> None:
    for job_id in (JOB, GOOD):
        await ledger.submit(make_submission(job_id))
    store.drop_messages()


@pytest.mark.usefixtures("two_jobs")
class TestASpoiledJob:
    @pytest.mark.parametrize("part", PARTS)
    def test_is_not_claimed_and_its_neighbour_is(
        self, worker: WorkerLedger, store: StoreView, redis_client: Any, part: Callable[[str], str]
    ) -> None:
        spoil(redis_client, part(JOB))
        claims = worker.claim_all([make_lease(), make_lease(job_id=GOOD)], alone=False)
        assert [claim.verdict for claim in claims] == [ClaimVerdict.ENDED, ClaimVerdict.RUN]
        assert store.outstanding() == [f"{GOOD}/0"]
        assert store.deadlines() == [GOOD]
        assert worker.claim(make_lease()).verdict in (ClaimVerdict.ENDED, ClaimVerdict.GONE)

    @pytest.mark.parametrize("part", [job_keys.job, job_keys.shards])
    def test_has_ended_for_who_renews_it(
        self, worker: WorkerLedger, store: StoreView, redis_client: Any, part: Callable[[str], str]
    ) -> None:
        leases = [make_lease(), make_lease(job_id=GOOD)]
        worker.claim_all(leases, alone=False)
        spoil(redis_client, part(JOB))
        assert worker.renew(leases) == [RenewVerdict.ENDED, RenewVerdict.LIVE]
        assert store.lease() is None

    @pytest.mark.parametrize("part", [job_keys.job, job_keys.shards, job_keys.results])
    def test_and_for_who_hands_its_scores_in(
        self, worker: WorkerLedger, store: StoreView, redis_client: Any, part: Callable[[str], str]
    ) -> None:
        leases = [make_lease(), make_lease(job_id=GOOD)]
        worker.claim_all(leases, alone=False)
        spoil(redis_client, part(JOB))
        verdicts, _ = worker.finish_and_dequeue(
            [(lease, make_scores(), WorkClass.INTERACTIVE) for lease in leases], FreeSlots(4, 4)
        )
        assert verdicts == [FinishVerdict.ENDED, FinishVerdict.ACCEPTED]
        assert store.outstanding() == []

    def test_and_for_who_tells_that_it_cannot_be_scored(self, worker: WorkerLedger, redis_client: Any) -> None:
        lease, failure = make_lease(), JobFailure("scoring_failed", "no")
        worker.claim(lease)
        tellings: list[Callable[[], FinishVerdict]] = [
            lambda: worker.fail(lease, failure),
            lambda: worker.retry_later(lease, 1.0, failure),
            lambda: worker.release(lease, WorkClass.INTERACTIVE),
        ]
        for tell in tellings:
            spoil(redis_client, job_keys.job(JOB))
            assert tell() is FinishVerdict.ENDED

    @pytest.mark.parametrize("part", [job_keys.job, job_keys.shards])
    async def test_is_given_up_by_the_reconciler_which_looks_after_the_others(
        self, ledger: JobLedger, store: StoreView, redis_client: Any, part: Callable[[str], str], published_ends: Any
    ) -> None:
        spoil(redis_client, part(JOB))
        store.make_due()
        store.make_due(job_id=GOOD)
        assert await ledger.reconcile(MODEL) == [WakeUp(GOOD, 0, WorkClass.INTERACTIVE)]
        assert store.outstanding() == [f"{GOOD}/0"]
        # Who waits for one that is gone notices by itself: it has not ended.
        assert published_ends() == []

    async def test_and_does_not_keep_others_from_expiring(
        self, ledger: JobLedger, store: StoreView, redis_client: Any
    ) -> None:
        store.pass_deadline()
        store.pass_deadline(GOOD)
        spoil(redis_client, job_keys.job(JOB))
        assert await ledger.expire(MODEL) == 1
        assert (await read_record(ledger, GOOD)).status is JobStatus.EXPIRED
        assert store.deadlines() == []

    async def test_is_said_to_be_damaged(self, ledger: JobLedger, redis_client: Any) -> None:
        redis_client.hset(job_keys.job(JOB), "status", "nonsense")
        assert await ledger.statuses([JOB, GOOD, "job-3"]) == {JOB: None, GOOD: JobStatus.QUEUED, "job-3": None}
        with pytest.raises(StoreDamaged):
            await ledger.read(JOB)
        spoil(redis_client, job_keys.job(JOB))
        assert await ledger.statuses([JOB, GOOD]) == {JOB: None, GOOD: JobStatus.QUEUED}
        with pytest.raises(StoreDamaged):
            await ledger.read(JOB)
        redis_client.set(job_keys.request(GOOD), "no JSON")
        with pytest.raises(StoreDamaged):
            await ledger.read_request(GOOD)


class TestALostPart:
    @pytest.mark.parametrize("part", PARTS[1:])
    async def test_fails_the_job_and_says_so(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView, redis_client: Any, part: Callable[[str], str]
    ) -> None:
        await ledger.submit(make_submission(shards=2))
        redis_client.delete(part(JOB))
        assert worker.claim(make_lease()).verdict is ClaimVerdict.ENDED
        record = await read_record(ledger)
        assert (record.status, record.failure) == (JobStatus.FAILED, JobFailure("scoring_failed", LOST))
        assert store.outstanding() == []

    async def test_also_when_nobody_claims_it(self, ledger: JobLedger, store: StoreView, redis_client: Any) -> None:
        await ledger.submit(make_submission())
        redis_client.delete(job_keys.shards(JOB))
        store.make_due()
        assert await ledger.reconcile(MODEL) == []
        assert (await read_record(ledger)).status is JobStatus.FAILED

    async def test_also_when_its_state_makes_no_sense(
        self, ledger: JobLedger, store: StoreView, redis_client: Any
    ) -> None:
        await ledger.submit(make_submission())
        redis_client.hset(job_keys.shards(JOB), "0:status", "nonsense")
        store.make_due()
        assert await ledger.reconcile(MODEL) == []
        assert (await read_record(ledger)).status is JobStatus.FAILED

    @pytest.mark.parametrize(("shards", "status"), [(1, JobStatus.SUCCEEDED), (2, JobStatus.FAILED)])
    async def test_also_when_it_is_how_many_shards_are_left(
        self, ledger: JobLedger, worker: WorkerLedger, redis_client: Any, shards: int, status: JobStatus
    ) -> None:
        """Of the only shard the scores are there: that is all."""
        await ledger.submit(make_submission(shards=shards))
        worker.claim(make_lease())
        redis_client.hdel(job_keys.job(JOB), "shards_left")
        worker.finish(make_lease(), make_scores(0.5), WorkClass.INTERACTIVE)
        assert (await read_record(ledger)).status is status

    async def test_also_when_it_is_the_scores_of_a_shard(
        self, ledger: JobLedger, worker: WorkerLedger, redis_client: Any
    ) -> None:
        await ledger.submit(make_submission(shards=2))
        for shard in range(2):
            redis_client.delete(job_keys.results(JOB))
            worker.claim(make_lease(shard))
            worker.finish(make_lease(shard), make_scores(0.5), WorkClass.INTERACTIVE)
        assert (await read_record(ledger)).status is JobStatus.FAILED

    async def test_a_shard_that_the_job_never_had_is_no_part_of_it(
        self, ledger: JobLedger, worker: WorkerLedger
    ) -> None:
        await ledger.submit(make_submission())
        assert worker.claim(make_lease(7)).verdict is ClaimVerdict.GONE
        assert (await read_record(ledger)).status is JobStatus.QUEUED


class TestMending:
    async def test_a_job_of_a_store_that_is_well_is_left_alone(self, ledger: JobLedger, redis_client: Any) -> None:
        await ledger.submit(make_submission(shards=3, enqueued=1))
        before = redis_client.zrange(pool_keys.outstanding(MODEL), 0, -1, withscores=True)
        redis_client.zadd(pool_keys.open_jobs(MODEL, WorkClass.INTERACTIVE), {JOB: 1})
        await ledger.repair(MODEL)
        assert redis_client.zrange(pool_keys.outstanding(MODEL), 0, -1, withscores=True) == before

    @pytest.mark.parametrize("rung", [1, 2])
    async def test_what_is_outstanding_is_found_again(
        self, ledger: JobLedger, store: StoreView, redis_client: Any, rung: int
    ) -> None:
        await ledger.submit(make_submission(shards=2, enqueued=rung))
        store.drop_messages()
        redis_client.delete(pool_keys.outstanding(MODEL))
        redis_client.zadd(pool_keys.open_jobs(MODEL, WorkClass.INTERACTIVE), {JOB: 1, "job-gone": 1})
        await ledger.repair(MODEL)
        assert store.outstanding() == [f"{JOB}/0", f"{JOB}/1"]
        assert [ring.shard for ring in await ledger.reconcile(MODEL)] == list(range(rung))
        assert redis_client.zrange(pool_keys.open_jobs(MODEL, WorkClass.INTERACTIVE), 0, -1) == [JOB.encode()]

    @pytest.mark.parametrize(
        "key",
        [
            pool_keys.outstanding(MODEL),
            pool_keys.deadlines(MODEL),
            pool_keys.load(MODEL),
            queue_keys.queue(MODEL, WorkClass.INTERACTIVE),
            pool_keys.open_jobs(MODEL, WorkClass.INTERACTIVE),
            pool_keys.workers(MODEL),
            job_keys.DEAD_LETTERS,
            *queue_keys.KOMBU_KEYS,
        ],
    )
    async def test_what_is_not_of_its_kind_is_removed(
        self, ledger: JobLedger, worker: WorkerLedger, redis_client: Any, key: str
    ) -> None:
        await ledger.submit(make_submission(GOOD))
        spoil(redis_client, key)
        worker.finish_and_dequeue([], FreeSlots(1, 1))
        await ledger.repair(MODEL)
        assert redis_client.type(key) != b"string"
        await ledger.submit(make_submission())
        await ledger.expire(MODEL)
        await ledger.reconcile(MODEL)
        worker.claim(make_lease())
        assert worker.finish_and_dequeue([(make_lease(), make_scores(), WorkClass.INTERACTIVE)], NO_FREE_SLOTS)[0] == [
            "accepted"
        ]

    async def test_also_in_full_memory(self, ledger: JobLedger, store: StoreView, redis_client: Any) -> None:
        await ledger.submit(make_submission())
        redis_client.delete(pool_keys.outstanding(MODEL))
        redis_client.zadd(pool_keys.open_jobs(MODEL, WorkClass.INTERACTIVE), {JOB: 1})
        with out_of_memory(redis_client):
            await ledger.repair(MODEL)
        assert store.outstanding() == [f"{JOB}/0"]


class TestWhatDamageIs:
    def test_something_of_another_kind_or_a_script_that_fails_on_it(self, redis_client: Any) -> None:
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
    def test_not_a_redis_that_refuses(self, redis_client: Any, write: str | None) -> None:
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
            with pytest.raises(StoreUnavailable) as told, store_errors():
                raise caught.value
            assert type(told.value) is StoreUnavailable

    async def test_a_redis_that_refuses_makes_no_job_given_up(
        self, ledger: JobLedger, store: StoreView, redis_client: Any
    ) -> None:
        await ledger.submit(make_submission())
        store.make_due()
        store.pass_deadline()
        redis_client.replicaof("127.0.0.1", 1)
        try:
            for look in (ledger.repair, ledger.expire, ledger.reconcile):
                with pytest.raises(StoreUnavailable) as caught:
                    await look(MODEL)
                assert type(caught.value) is StoreUnavailable
        finally:
            redis_client.replicaof("NO", "ONE")
        assert (await read_record(ledger)).status is JobStatus.QUEUED
