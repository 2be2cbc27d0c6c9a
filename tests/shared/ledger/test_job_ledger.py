import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
import redis

from shared.contracts import WorkClass
from shared.errors import StoreUnavailable
from shared.keys import job_keys, pool_keys, queue_keys
from shared.ledger.job_ledger import JobLedger
from shared.ledger.job_record import JobFailure, JobRecord, JobStatus
from shared.ledger.limits import LEASE_SECONDS, MAX_CRASHES, MAX_TRANSIENT_ERRORS, RESEND_SECONDS
from shared.ledger.submission import Acceptance
from shared.ledger.verdicts import Claim, ClaimVerdict, FinishVerdict
from shared.ledger.worker_ledger import WorkerLedger
from shared.queue.messages import WakeUp
from shared.store.client import RETRY_AFTER_SECONDS, connect, connect_async
from tests.shared.conftest import LIFETIMES
from tests.shared.support import (
    JOB,
    MODEL,
    OWNER,
    StoreView,
    dead_redis_url,
    make_lease,
    make_request,
    make_scores,
    make_submission,
    read_message,
    read_record,
)

INTERACTIVE = WorkClass.INTERACTIVE
FAILURE = JobFailure("scoring_failed", "the engine failed")


End = Callable[[JobLedger, WorkerLedger, StoreView], Awaitable[None]]


async def finished(_: JobLedger, worker: WorkerLedger, __: StoreView) -> None:
    worker.finish(make_lease(1), make_scores(), INTERACTIVE)


async def failed(_: JobLedger, worker: WorkerLedger, __: StoreView) -> None:
    worker.fail(make_lease(1), FAILURE)


async def canceled(ledger: JobLedger, _: WorkerLedger, __: StoreView) -> None:
    await ledger.cancel(await read_record(ledger))


async def expired_at_a_claim(_: JobLedger, worker: WorkerLedger, store: StoreView) -> None:
    store.pass_deadline()
    worker.claim(make_lease(1))


async def expired_at_a_renewal(_: JobLedger, worker: WorkerLedger, store: StoreView) -> None:
    store.pass_deadline()
    worker.renew([make_lease(1)])


async def expired_by_the_reconciler(ledger: JobLedger, _: WorkerLedger, store: StoreView) -> None:
    store.pass_deadline()
    await ledger.expire(MODEL)


async def crashed_too_often(ledger: JobLedger, worker: WorkerLedger, store: StoreView) -> None:
    for _ in range(MAX_CRASHES):
        worker.claim(make_lease(1))
        store.end_lease(1)
        await ledger.reconcile(MODEL)


async def retried_too_often(_: JobLedger, worker: WorkerLedger, __: StoreView) -> None:
    for _try in range(MAX_TRANSIENT_ERRORS + 1):
        worker.claim(make_lease(1))
        worker.retry_later(make_lease(1), 1.0, FAILURE)


ENDS: list[End] = [
    finished,
    failed,
    canceled,
    expired_at_a_claim,
    expired_at_a_renewal,
    expired_by_the_reconciler,
    crashed_too_often,
    retried_too_often,
]
"""All ways in which a job ends while its second shard is claimed."""


class TestSubmit:
    async def test_a_submission_writes_the_job_its_shards_and_its_messages(
        self, ledger: JobLedger, store: StoreView
    ) -> None:
        submission = make_submission(shards=2, deadline_seconds=30)
        assert await ledger.submit(submission) == Acceptance(JOB, existing=False)

        record = await read_record(ledger)
        assert record == JobRecord(
            id=JOB,
            status=JobStatus.QUEUED,
            model=MODEL,
            dialect="superset",
            owner=OWNER,
            work_class=WorkClass.INTERACTIVE,
            pairs=2,
            pairs_known=0,
            pairs_scored=0,
            shards=2,
            shards_left=2,
            created_ms=record.created_ms,
            started_ms=0,
            finished_ms=0,
            deadline_ms=record.created_ms + 30_000,
            failure=None,
            result_ttl_ms=100_000,
        )
        assert await ledger.read_request(JOB) == (make_submission(shards=2).request, None)
        assert [store.shard(number) for number in range(2)] == [{"status": "queued"}] * 2
        assert [store.size(number) for number in range(2)] == submission.sizes
        assert store.outstanding() == ["job-1/0", "job-1/1"]
        assert store.deadlines() == [JOB]
        assert store.messages() == [b"message job-1/0", b"message job-1/1"]

    async def test_only_the_first_shards_of_a_large_job_are_enqueued(self, ledger: JobLedger, store: StoreView) -> None:
        await ledger.submit(make_submission(shards=4, enqueued=2))
        assert store.messages() == [b"message job-1/0", b"message job-1/1"]
        assert [store.shard(number)["status"] for number in range(4)] == ["queued", "queued", "waiting", "waiting"]
        assert len(store.outstanding()) == 4
        assert [store.due_in_seconds(number) < 3600 for number in range(4)] == [True, True, False, False]

    async def test_the_time_of_acceptance_is_from_the_clock_of_redis(self, ledger: JobLedger, store: StoreView) -> None:
        before = store.now_ms()
        await ledger.submit(make_submission())
        assert before <= (await read_record(ledger)).created_ms <= store.now_ms()

    async def test_the_oldest_message_is_popped_first(self, ledger: JobLedger, store: StoreView) -> None:
        await ledger.submit(make_submission("job-1"))
        await ledger.submit(make_submission("job-2"))
        assert store.messages() == [b"message job-1/0", b"message job-2/0"]

    async def test_batch_jobs_have_their_own_queue(self, ledger: JobLedger, store: StoreView) -> None:
        await ledger.submit(replace(make_submission(), work_class=WorkClass.BATCH))
        assert store.messages() == []
        assert len(store.messages(WorkClass.BATCH)) == 1

    async def test_a_repeated_submission_changes_nothing(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission())
        worker.claim(make_lease())
        worker.finish(make_lease(), make_scores(), INTERACTIVE)
        await ledger.submit(make_submission())
        assert (await read_record(ledger)).status is JobStatus.SUCCEEDED
        assert len(store.messages()) == 1


class TestReading:
    async def test_a_missing_job_is_none(self, ledger: JobLedger) -> None:
        assert await ledger.read("job-x") is None
        assert await ledger.read_request("job-x") is None
        assert await ledger.read_finished("job-x") == (None, [])

    async def test_statuses_of_many_jobs(self, ledger: JobLedger, worker: WorkerLedger) -> None:
        for job_id in ("job-1", "job-2"):
            await ledger.submit(make_submission(job_id))
        worker.claim(make_lease(job_id="job-2"))
        assert await ledger.statuses(["job-1", "job-2", "job-x"]) == {
            "job-1": JobStatus.QUEUED,
            "job-2": JobStatus.RUNNING,
            "job-x": None,
        }

    async def test_scores_are_in_the_order_of_the_shards(self, ledger: JobLedger, worker: WorkerLedger) -> None:
        await ledger.submit(make_submission(shards=11))
        for shard in reversed(range(11)):
            worker.claim(make_lease(shard, f"token {shard}"))
            worker.finish(make_lease(shard, f"token {shard}"), make_scores(float(shard)), INTERACTIVE)
        record, shards = await ledger.read_finished(JOB)
        assert record is not None
        assert record.status is JobStatus.SUCCEEDED
        assert [shard.scores for shard in shards] == [[float(number)] for number in range(11)]


class TestClaim:
    async def test_a_claim_returns_the_request_and_the_time_in_the_queue(
        self, ledger: JobLedger, worker: WorkerLedger
    ) -> None:
        await ledger.submit(make_submission())
        await asyncio.sleep(0.01)
        claim = worker.claim(make_lease())
        assert (claim.verdict, claim.request) == (ClaimVerdict.RUN, make_submission().request)
        assert 10 <= claim.queue_ms < 60_000

        record = await read_record(ledger)
        assert record.status is JobStatus.RUNNING
        assert record.started_ms == record.created_ms + claim.queue_ms

    def test_a_missing_job_is_gone(self, worker: WorkerLedger) -> None:
        assert worker.claim(make_lease(job_id="job-x")).verdict is ClaimVerdict.GONE

    async def test_a_shard_under_a_live_lease_is_held(self, ledger: JobLedger, worker: WorkerLedger) -> None:
        await ledger.submit(make_submission())
        worker.claim(make_lease(token="first"))
        assert worker.claim(make_lease(token="second")).verdict is ClaimVerdict.HELD

    async def test_shards_are_claimed_independently(self, ledger: JobLedger, worker: WorkerLedger) -> None:
        await ledger.submit(make_submission(shards=2))
        assert worker.claim(make_lease(token="first")).verdict is ClaimVerdict.RUN
        assert worker.claim(make_lease(1, "second")).verdict is ClaimVerdict.RUN

    async def test_a_claim_returns_only_the_documents_of_its_shard(
        self, ledger: JobLedger, worker: WorkerLedger
    ) -> None:
        request = make_request("a", "b", "c", "d", "e", top_n=2, priority=7)
        await ledger.submit(make_submission(request=request, shards=2))
        requests = [worker.claim(make_lease(shard)).request for shard in (0, 1)]
        assert requests == [
            request.model_copy(update={"documents": request.documents[:3]}),
            request.model_copy(update={"documents": request.documents[3:]}),
        ]
        assert await ledger.read_request(JOB) == (request, None)

    async def test_a_claim_creates_a_lease(self, ledger: JobLedger, worker: WorkerLedger, store: StoreView) -> None:
        await ledger.submit(make_submission())
        worker.claim(make_lease())
        assert store.lease() == "token"
        assert 0 < store.remaining_seconds(job_keys.lease(JOB, 0)) <= LEASE_SECONDS
        assert 0 < store.due_in_seconds() <= LEASE_SECONDS

    async def test_a_shard_with_an_expired_lease_is_held_until_the_reconciler_requeues_it(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission())
        worker.claim(make_lease(token="first"))
        store.end_lease()
        assert worker.claim(make_lease(token="second")).verdict is ClaimVerdict.HELD
        await ledger.reconcile(MODEL)
        assert worker.claim(make_lease(token="second")).verdict is ClaimVerdict.RUN

    async def test_a_shard_that_must_run_alone_is_not_claimed_by_a_worker_with_other_shards(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView, redis_client: Any
    ) -> None:
        await ledger.submit(make_submission())
        redis_client.hset(job_keys.shards(JOB), "0:run_alone", 1)
        assert worker.claim(make_lease(), alone=False).verdict is ClaimVerdict.ALONE
        # It has no lease: a crash of the worker does not count for it while it waits.
        assert (store.shard()["status"], store.lease()) == ("queued", None)
        assert (await read_record(ledger)).status is JobStatus.QUEUED
        assert worker.claim(make_lease(), alone=True).verdict is ClaimVerdict.RUN

    async def test_the_verdict_alone_is_returned_only_for_claimable_shards(
        self, ledger: JobLedger, worker: WorkerLedger, redis_client: Any
    ) -> None:
        await ledger.submit(make_submission(shards=2))
        redis_client.hset(job_keys.shards(JOB), "0:run_alone", 1)
        worker.claim(make_lease(token="another worker"))
        assert worker.claim(make_lease(), alone=False).verdict is ClaimVerdict.HELD
        worker.finish(make_lease(token="another worker"), make_scores(), INTERACTIVE)
        assert worker.claim(make_lease(), alone=False).verdict is ClaimVerdict.DONE

    async def test_an_undecodable_request_is_claimed_as_unreadable(
        self, ledger: JobLedger, worker: WorkerLedger, redis_client: Any
    ) -> None:
        await ledger.submit(make_submission())
        redis_client.hset(job_keys.documents(JOB), "0", "not JSON")
        assert worker.claim(make_lease()) == Claim(ClaimVerdict.UNREADABLE)

    async def test_a_scored_shard_of_an_unfinished_job_is_done(self, ledger: JobLedger, worker: WorkerLedger) -> None:
        await ledger.submit(make_submission(shards=2))
        worker.claim(make_lease())
        worker.finish(make_lease(), make_scores(), INTERACTIVE)
        assert worker.claim(make_lease(token="another")).verdict is ClaimVerdict.DONE

    async def test_an_ended_job_cannot_be_claimed(self, ledger: JobLedger, worker: WorkerLedger) -> None:
        await ledger.submit(make_submission())
        await ledger.cancel(await read_record(ledger))
        assert worker.claim(make_lease()).verdict is ClaimVerdict.ENDED

    async def test_a_claim_past_the_deadline_expires_the_job(
        self,
        ledger: JobLedger,
        worker: WorkerLedger,
        store: StoreView,
        published_ends: Callable[[], list[str]],
    ) -> None:
        await ledger.submit(make_submission(deadline_seconds=0.001))
        await asyncio.sleep(0.01)
        assert worker.claim(make_lease()).verdict is ClaimVerdict.ENDED
        assert (await read_record(ledger)).status is JobStatus.EXPIRED
        assert (store.outstanding(), store.deadlines()) == ([], [])
        assert published_ends() == [JOB]

    async def test_a_claim_can_be_repeated_with_its_token(self, ledger: JobLedger, worker: WorkerLedger) -> None:
        await ledger.submit(make_submission())
        worker.claim(make_lease())
        assert worker.claim(make_lease()).verdict is ClaimVerdict.RUN


class TestFinish:
    async def test_the_last_shard_makes_the_job_succeed(self, ledger: JobLedger, worker: WorkerLedger) -> None:
        await ledger.submit(make_submission(shards=2))
        statuses = []
        for shard in (0, 1):
            worker.claim(make_lease(shard))
            assert worker.finish(make_lease(shard), make_scores(), INTERACTIVE) is FinishVerdict.ACCEPTED
            record = await read_record(ledger)
            statuses.append((record.status, record.shards_left))
        assert statuses == [(JobStatus.RUNNING, 1), (JobStatus.SUCCEEDED, 0)]
        assert record.finished_ms >= record.started_ms >= record.created_ms

    async def test_a_finished_shard_is_not_outstanding(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission(shards=2))
        worker.claim(make_lease())
        worker.finish(make_lease(), make_scores(), INTERACTIVE)
        assert store.outstanding() == ["job-1/1"]

    async def test_a_second_finish_of_a_shard_is_stale(self, ledger: JobLedger, worker: WorkerLedger) -> None:
        await ledger.submit(make_submission(shards=2))
        worker.claim(make_lease())
        worker.finish(make_lease(), make_scores(0.1, 0.2), INTERACTIVE)
        assert worker.finish(make_lease(), make_scores(0.8, 0.9), INTERACTIVE) is FinishVerdict.STALE
        _, shards = await ledger.read_finished(JOB)
        assert shards == [make_scores(0.1, 0.2)]
        assert (await read_record(ledger)).shards_left == 1

    async def test_a_finish_after_the_end_is_too_late(self, ledger: JobLedger, worker: WorkerLedger) -> None:
        await ledger.submit(make_submission())
        worker.claim(make_lease())
        worker.finish(make_lease(), make_scores(), INTERACTIVE)
        assert worker.finish(make_lease(), make_scores(), INTERACTIVE) is FinishVerdict.ENDED

    def test_a_finish_of_a_job_that_is_gone_is_too_late(self, worker: WorkerLedger) -> None:
        assert worker.finish(make_lease(job_id="job-x"), make_scores(), INTERACTIVE) is FinishVerdict.ENDED

    async def test_finishing_an_unclaimed_shard_is_stale(self, ledger: JobLedger, worker: WorkerLedger) -> None:
        await ledger.submit(make_submission())
        assert worker.finish(make_lease(), make_scores(), INTERACTIVE) is FinishVerdict.STALE

    async def test_reports_with_the_token_of_an_expired_claim_are_stale(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission())
        first, second = make_lease(token="first"), make_lease(token="second")
        worker.claim(first)
        store.end_lease()
        await ledger.reconcile(MODEL)
        for _ in range(2):
            assert worker.finish(first, make_scores(0.1, 0.1), INTERACTIVE) is FinishVerdict.STALE
            assert worker.fail(first, FAILURE) is FinishVerdict.STALE
            assert worker.release(first, INTERACTIVE) is FinishVerdict.STALE
            assert worker.retry_later(first, 1.0, FAILURE) is FinishVerdict.STALE
            worker.claim(second)
        assert worker.finish(second, make_scores(0.9, 0.9), INTERACTIVE) is FinishVerdict.ACCEPTED
        _, shards = await ledger.read_finished(JOB)
        assert shards == [make_scores(0.9, 0.9)]

    async def test_a_worker_with_an_expired_lease_may_finish_until_the_shard_is_requeued(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission())
        worker.claim(make_lease())
        store.end_lease()
        assert worker.finish(make_lease(), make_scores(), INTERACTIVE) is FinishVerdict.ACCEPTED

    async def test_every_shard_is_accepted_exactly_once(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission(shards=3))
        for shard in (2, 0, 1):
            worker.claim(make_lease(shard))
            for _ in range(2):
                worker.finish(make_lease(shard), make_scores(), INTERACTIVE)
        assert [store.shard(shard)["finishes_accepted"] for shard in range(3)] == ["1", "1", "1"]

    async def test_each_finish_enqueues_the_next_shard(
        self, ledger: JobLedger, enqueueing_worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission(shards=4, enqueued=2))
        store.drop_messages()
        enqueued: list[list[tuple[str, int]]] = []
        for shard in (1, 0, 2, 3):
            enqueueing_worker.claim(make_lease(shard))
            enqueueing_worker.finish(make_lease(shard), make_scores(), INTERACTIVE)
            enqueued.append([read_message(message) for message in store.messages()])
            store.drop_messages()
        assert enqueued == [[(JOB, 2)], [(JOB, 3)], [], []]
        assert (await read_record(ledger)).status is JobStatus.SUCCEEDED

    async def test_the_reconciler_finds_the_next_shard_without_a_message(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission(shards=3, enqueued=1))
        store.drop_messages()
        worker.claim(make_lease())
        worker.finish(make_lease(), make_scores(), INTERACTIVE)
        assert [store.shard(shard)["status"] for shard in (1, 2)] == ["queued", "waiting"]
        assert 0 < store.due_in_seconds(1) <= RESEND_SECONDS
        store.make_due(1)
        assert await ledger.reconcile(MODEL) == [WakeUp(JOB, 1, INTERACTIVE)]

    async def test_the_next_shard_of_a_batch_job_is_enqueued_in_the_batch_queue(
        self, ledger: JobLedger, enqueueing_worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(replace(make_submission(shards=2, enqueued=1), work_class=WorkClass.BATCH))
        store.drop_messages()
        enqueueing_worker.claim(make_lease())
        enqueueing_worker.finish(make_lease(), make_scores(), WorkClass.BATCH)
        assert store.messages() == []
        assert [read_message(message) for message in store.messages(WorkClass.BATCH)] == [(JOB, 1)]

    async def test_a_shard_claimed_before_it_was_enqueued_is_scored_once(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission(shards=3, enqueued=1))
        for shard in (1, 0):
            worker.claim(make_lease(shard))
            worker.finish(make_lease(shard), make_scores(), INTERACTIVE)
        assert store.outstanding() == ["job-1/2"]
        assert worker.claim(make_lease(1, "another")).verdict is ClaimVerdict.DONE


class TestFail:
    async def test_one_failed_shard_fails_the_job(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission(shards=2))
        worker.claim(make_lease(1))
        assert worker.fail(make_lease(1), FAILURE) is FinishVerdict.ACCEPTED
        record = await read_record(ledger)
        assert (record.status, record.failure) == (JobStatus.FAILED, FAILURE)
        assert store.outstanding() == []

    async def test_a_failure_with_another_token_is_stale(self, ledger: JobLedger, worker: WorkerLedger) -> None:
        await ledger.submit(make_submission())
        worker.claim(make_lease())
        assert worker.fail(make_lease(token="another"), FAILURE) is FinishVerdict.STALE
        assert (await read_record(ledger)).status is JobStatus.RUNNING

    async def test_a_failure_after_the_end_is_ignored(self, ledger: JobLedger, worker: WorkerLedger) -> None:
        await ledger.submit(make_submission())
        worker.claim(make_lease())
        worker.finish(make_lease(), make_scores(), INTERACTIVE)
        assert worker.fail(make_lease(), FAILURE) is FinishVerdict.ENDED
        assert worker.fail(make_lease(job_id="job-x"), FAILURE) is FinishVerdict.ENDED
        record = await read_record(ledger)
        assert (record.status, record.failure) == (JobStatus.SUCCEEDED, None)


class TestCancel:
    async def test_a_canceled_job_stays_canceled(self, ledger: JobLedger, store: StoreView) -> None:
        await ledger.submit(make_submission())
        record = await read_record(ledger)
        assert await ledger.cancel(record) is JobStatus.CANCELED
        canceled = await read_record(ledger)
        assert await ledger.cancel(record) is JobStatus.CANCELED
        assert await read_record(ledger) == canceled
        assert store.outstanding() == []

    async def test_a_succeeded_job_is_unchanged(self, ledger: JobLedger, worker: WorkerLedger) -> None:
        await ledger.submit(make_submission())
        worker.claim(make_lease())
        worker.finish(make_lease(), make_scores(), INTERACTIVE)
        succeeded = await ledger.read_finished(JOB)
        assert await ledger.cancel(await read_record(ledger)) is JobStatus.SUCCEEDED
        assert await ledger.read_finished(JOB) == succeeded

    async def test_the_scores_of_a_canceled_job_are_rejected(self, ledger: JobLedger, worker: WorkerLedger) -> None:
        await ledger.submit(make_submission())
        worker.claim(make_lease())
        await ledger.cancel(await read_record(ledger))
        assert worker.finish(make_lease(), make_scores(), INTERACTIVE) is FinishVerdict.ENDED
        _, shards = await ledger.read_finished(JOB)
        assert shards == []

    async def test_a_deleted_job_has_no_status(self, ledger: JobLedger) -> None:
        await ledger.submit(make_submission())
        record = await read_record(ledger)
        await ledger.delete(record)
        assert await ledger.cancel(record) is None


class TestDelete:
    @pytest.mark.parametrize("finished", [False, True])
    async def test_only_the_message_the_count_and_the_time_of_the_last_end_remain(
        self, ledger: JobLedger, worker: WorkerLedger, redis_client: redis.Redis, finished: bool
    ) -> None:
        await ledger.submit(make_submission())
        if finished:
            worker.claim(make_lease())
            worker.finish(make_lease(), make_scores(), INTERACTIVE)
        record = await read_record(ledger)
        assert await ledger.delete(record)
        assert set(redis_client.keys()) == {
            queue_keys.queue(MODEL, INTERACTIVE).encode(),
            pool_keys.load(MODEL).encode(),
            pool_keys.job_counts(MODEL).encode(),
        }
        assert list(redis_client.hgetall(pool_keys.load(MODEL))) == [b"ended_ms"]
        assert not await ledger.delete(record)


class TestLifetimes:
    async def test_every_key_of_an_unfinished_job_has_a_maximum_lifetime(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission(shards=2))
        worker.claim(make_lease())
        for key in (job_keys.job(JOB), job_keys.request(JOB), job_keys.documents(JOB), job_keys.shards(JOB)):
            assert LIFETIMES.result < store.remaining_seconds(key) <= LIFETIMES.unfinished
        worker.finish(make_lease(), make_scores(), INTERACTIVE)
        assert store.remaining_seconds(job_keys.results(JOB)) > LIFETIMES.result

    @pytest.mark.parametrize("end", ENDS)
    async def test_every_key_of_an_ended_job_expires_with_its_result(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView, redis_client: Any, end: End
    ) -> None:
        await ledger.submit(make_submission(shards=2, idempotency="mine"))
        worker.claim(make_lease())
        worker.finish(make_lease(), make_scores(), INTERACTIVE)
        worker.claim(make_lease(1))
        await end(ledger, worker, store)
        assert (await read_record(ledger)).status.final

        names = [
            job_keys.job(JOB),
            job_keys.request(JOB),
            job_keys.documents(JOB),
            job_keys.shards(JOB),
            job_keys.results(JOB),
        ]
        assert {key.decode() for key in redis_client.keys("rerankq:job:*")} == set(names)
        for key in (*names, job_keys.idempotency(OWNER, "mine")):
            assert 0 < store.remaining_seconds(key) <= LIFETIMES.result
        assert (store.outstanding(), store.deadlines()) == ([], [])


class TestNotifications:
    async def test_only_the_last_finish_is_published(
        self, ledger: JobLedger, worker: WorkerLedger, published_ends: Callable[[], list[str]]
    ) -> None:
        await ledger.submit(make_submission(shards=2))
        worker.claim(make_lease())
        worker.finish(make_lease(), make_scores(), INTERACTIVE)
        worker.claim(make_lease(1))
        assert published_ends() == []
        worker.finish(make_lease(1), make_scores(), INTERACTIVE)
        assert published_ends() == [JOB]

    async def test_an_end_is_published_once(
        self, ledger: JobLedger, worker: WorkerLedger, published_ends: Callable[[], list[str]]
    ) -> None:
        await ledger.submit(make_submission())
        worker.claim(make_lease())
        worker.fail(make_lease(), FAILURE)
        assert published_ends() == [JOB]
        worker.fail(make_lease(), FAILURE)
        worker.finish(make_lease(), make_scores(), INTERACTIVE)
        worker.claim(make_lease())
        record = await read_record(ledger)
        await ledger.cancel(record)
        await ledger.delete(record)
        assert published_ends() == []

    @pytest.mark.parametrize("end", ENDS)
    async def test_every_kind_of_end_is_published_once(
        self,
        ledger: JobLedger,
        worker: WorkerLedger,
        store: StoreView,
        published_ends: Callable[[], list[str]],
        end: End,
    ) -> None:
        await ledger.submit(make_submission(shards=2))
        worker.claim(make_lease())
        worker.finish(make_lease(), make_scores(), INTERACTIVE)
        worker.claim(make_lease(1))
        await end(ledger, worker, store)
        assert published_ends() == [JOB]

    async def test_a_deletion_is_published(self, ledger: JobLedger, published_ends: Callable[[], list[str]]) -> None:
        await ledger.submit(make_submission())
        await ledger.delete(await read_record(ledger))
        assert published_ends() == [JOB]


class TestEnqueue:
    async def test_resent_messages_come_before_new_ones(self, ledger: JobLedger, store: StoreView) -> None:
        await ledger.submit(make_submission())
        await ledger.enqueue(queue_keys.queue(MODEL, INTERACTIVE), [b"first", b"second"])
        assert store.messages() == [b"first", b"second", b"message job-1/0"]

    async def test_an_empty_list_sends_nothing(self, ledger: JobLedger, redis_client: Any) -> None:
        await ledger.enqueue(queue_keys.queue(MODEL, INTERACTIVE), [])
        assert redis_client.keys() == []

    async def test_ten_thousand_messages_are_sent_at_once(self, ledger: JobLedger, store: StoreView) -> None:
        messages = [b"message %d" % number for number in range(10_000)]
        await ledger.enqueue(queue_keys.queue(MODEL, INTERACTIVE), messages)
        assert store.messages() == messages


class TestOutage:
    async def test_the_api_gets_store_unavailable(self) -> None:
        client = connect_async(dead_redis_url())
        ledger = JobLedger(client)
        calls = [
            ledger.submit(make_submission()),
            ledger.read(JOB),
            ledger.read_request(JOB),
            ledger.read_finished(JOB),
            ledger.statuses([JOB]),
            ledger.reconcile(MODEL),
            ledger.expire(MODEL),
            ledger.enqueue("queue", [b"message"]),
        ]
        for call in calls:
            with pytest.raises(StoreUnavailable, match="cannot be reached") as caught:
                await call
            assert caught.value.retry_after == RETRY_AFTER_SECONDS
        await client.aclose()

    def test_the_worker_gets_store_unavailable(self) -> None:
        with connect(dead_redis_url()) as client:
            worker = WorkerLedger(client, MODEL)
            with pytest.raises(StoreUnavailable, match="cannot be reached"):
                worker.claim(make_lease())
            with pytest.raises(StoreUnavailable, match="cannot be reached"):
                worker.finish(make_lease(), make_scores(), INTERACTIVE)
            with pytest.raises(StoreUnavailable, match="cannot be reached"):
                worker.fail(make_lease(), FAILURE)
            for call in (
                lambda: worker.renew([make_lease()]),
                lambda: worker.release(make_lease(), INTERACTIVE),
                lambda: worker.retry_later(make_lease(), 1.0, FAILURE),
            ):
                with pytest.raises(StoreUnavailable, match="cannot be reached"):
                    call()

    async def test_scripts_are_loaded_again_after_redis_lost_them(
        self, ledger: JobLedger, redis_client: redis.Redis
    ) -> None:
        await ledger.submit(make_submission("job-1"))
        redis_client.script_flush()
        await ledger.submit(make_submission("job-2"))
        assert await ledger.read("job-2") is not None
