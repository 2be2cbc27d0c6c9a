"""What queue clients ask of the ledger: limits of a job of its own, retries, purges, counts and streams."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
import redis.asyncio

from shared.contracts import WorkClass
from shared.keys import job_keys, pool_keys
from shared.ledger.job_ledger import JobLedger
from shared.ledger.job_record import JobFailure, JobStatus
from shared.ledger.queue_ledger import JobCounts, QueueLedger
from shared.ledger.verdicts import ClaimVerdict
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
    out_of_memory,
    read_record,
)

INTERACTIVE = WorkClass.INTERACTIVE
FAILURE = JobFailure("scoring_failed", "the engine failed")


@pytest.fixture
def queues(async_client: redis.asyncio.Redis) -> QueueLedger:
    return QueueLedger(async_client)


class TestExecutionTimeout:
    async def test_it_begins_when_a_worker_starts_the_job(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(replace(make_submission(shards=2), execution_seconds=5.0))
        assert (await read_record(ledger)).deadline_ms == pytest.approx(store.now_ms() + 60_000, abs=2000)
        worker.claim(make_lease(0))
        deadline = (await read_record(ledger)).deadline_ms
        assert deadline == pytest.approx(store.now_ms() + 5000, abs=2000)
        store.wait_for_next_millisecond()
        worker.claim(make_lease(1))
        assert (await read_record(ledger)).deadline_ms == deadline

    async def test_it_does_not_extend_the_deadline(self, ledger: JobLedger, worker: WorkerLedger) -> None:
        await ledger.submit(replace(make_submission(deadline_seconds=2.0), execution_seconds=5.0))
        before = (await read_record(ledger)).deadline_ms
        worker.claim(make_lease())
        assert (await read_record(ledger)).deadline_ms == before

    async def test_job_expires_at_its_end(self, ledger: JobLedger, worker: WorkerLedger) -> None:
        await ledger.submit(replace(make_submission(), execution_seconds=0.01))
        assert worker.claim(make_lease()).verdict is ClaimVerdict.RUN
        await asyncio.sleep(0.02)
        assert await ledger.expire(MODEL) == 1
        assert (await read_record(ledger)).status is JobStatus.EXPIRED


class TestKeptSeconds:
    async def test_they_count_from_the_jobs_acceptance(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(replace(make_submission(), kept_seconds=3.0))
        worker.claim(make_lease())
        await asyncio.sleep(1.0)
        worker.finish(make_lease(), make_scores(), INTERACTIVE)
        assert 0 < store.remaining_seconds(job_keys.job(JOB)) <= 2.0
        assert 0 < store.remaining_seconds(job_keys.results(JOB)) <= 2.0

    async def test_job_that_ends_after_them_does_not_exist(self, ledger: JobLedger) -> None:
        await ledger.submit(replace(make_submission(), kept_seconds=0.001))
        await asyncio.sleep(0.01)
        await ledger.cancel(await read_record(ledger))
        await asyncio.sleep(0.01)
        assert await ledger.read(JOB) is None


class TestRetry:
    async def test_expired_job_runs_again(self, ledger: JobLedger, worker: WorkerLedger, store: StoreView) -> None:
        await ledger.submit(make_submission(shards=2))
        worker.claim(make_lease(0))
        worker.finish(make_lease(0), make_scores(0.25), INTERACTIVE)
        worker.claim(make_lease(1, "slow"))
        store.pass_deadline()
        await ledger.expire(MODEL)

        wake_ups = await ledger.retry_failed(await read_record(ledger), 60)
        assert wake_ups == [WakeUp(JOB, 1, INTERACTIVE)]
        assert worker.claim(make_lease(1, "again")).verdict is ClaimVerdict.RUN
        assert worker.finish(make_lease(1, "slow"), make_scores(0.5), INTERACTIVE) == "stale"
        assert worker.finish(make_lease(1, "again"), make_scores(0.75), INTERACTIVE) == "accepted"
        record, shards = await ledger.read_finished(JOB)
        assert record is not None
        assert record.status is JobStatus.SUCCEEDED
        assert [shard.scores for shard in shards] == [[0.25], [0.75]]

    async def test_execution_timeout_begins_again(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(replace(make_submission(), execution_seconds=5.0))
        worker.claim(make_lease())
        worker.fail(make_lease(), FAILURE)
        await ledger.retry_failed(await read_record(ledger), 60)
        assert (await read_record(ledger)).deadline_ms == pytest.approx(store.now_ms() + 60_000, abs=2000)
        worker.claim(make_lease(token="again"))
        assert (await read_record(ledger)).deadline_ms == pytest.approx(store.now_ms() + 5000, abs=2000)

    async def test_other_jobs_stay(self, ledger: JobLedger) -> None:
        await ledger.submit(make_submission())
        record = await read_record(ledger)
        assert await ledger.retry_failed(record, 60) is None
        await ledger.cancel(record)
        assert await ledger.retry_failed(record, 60) is None


class TestPurge:
    async def test_it_cancels_what_waits_and_not_what_runs(
        self, ledger: JobLedger, queues: QueueLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        for name, work_class in (("runs", INTERACTIVE), ("waits", INTERACTIVE), ("waits-too", WorkClass.BATCH)):
            await ledger.submit(make_submission(name, work_class=work_class))
        worker.claim(make_lease(job_id="runs"))
        assert await queues.purge(MODEL, OWNER, seconds=5.0) == 2
        statuses = await ledger.statuses(["runs", "waits", "waits-too"])
        assert list(statuses.values()) == [JobStatus.RUNNING, JobStatus.CANCELED, JobStatus.CANCELED]
        assert store.outstanding() == ["runs/0"]
        assert await queues.purge(MODEL, OWNER, seconds=5.0) == 0

    async def test_jobs_of_others_and_lines_of_batches_stay(self, ledger: JobLedger, queues: QueueLedger) -> None:
        await ledger.submit(make_submission("theirs", owner="another"))
        await ledger.submit(replace(make_submission("line"), batch="batch-1"))
        assert await queues.purge(MODEL, OWNER, seconds=5.0) == 0
        assert set((await ledger.statuses(["theirs", "line"])).values()) == {JobStatus.QUEUED}

    async def test_it_stops_in_time_and_can_be_repeated(self, ledger: JobLedger, queues: QueueLedger) -> None:
        await ledger.submit(make_submission())
        assert await queues.purge(MODEL, OWNER, seconds=0.0) == 0
        assert await queues.purge(MODEL, OWNER, seconds=5.0) == 1

    async def test_it_frees_a_full_redis(self, ledger: JobLedger, queues: QueueLedger, redis_client: Any) -> None:
        await ledger.submit(make_submission())
        with out_of_memory(redis_client):
            assert await queues.purge(MODEL, OWNER, seconds=5.0) == 1

    async def test_a_damaged_job_does_not_stop_it(
        self, ledger: JobLedger, queues: QueueLedger, redis_client: Any
    ) -> None:
        await ledger.submit(make_submission("damaged"))
        await ledger.submit(make_submission("good"))
        redis_client.set(job_keys.job("damaged"), "foreign")
        assert await queues.purge(MODEL, OWNER, seconds=5.0) == 1


class TestCounts:
    async def test_every_end_and_every_retry_is_counted(
        self, ledger: JobLedger, queues: QueueLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        for name in ("succeeds", "fails", "is-canceled", "expires"):
            await ledger.submit(make_submission(name))
            worker.claim(make_lease(job_id=name))
        worker.finish(make_lease(job_id="succeeds"), make_scores(), INTERACTIVE)
        worker.fail(make_lease(job_id="fails"), FAILURE)
        await ledger.cancel(await read_record(ledger, "is-canceled"))
        store.pass_deadline("expires")
        await ledger.expire(MODEL)
        await ledger.retry_failed(await read_record(ledger, "fails"), 60)
        assert await queues.counts(MODEL) == JobCounts(1, 1, 1, 1, 1)

    async def test_unknown_pool_has_none(self, queues: QueueLedger) -> None:
        assert await queues.counts("another-model") == JobCounts()

    async def test_foreign_value_in_their_place_fails_no_job_and_is_repaired(
        self, ledger: JobLedger, queues: QueueLedger, redis_client: Any
    ) -> None:
        redis_client.set(pool_keys.job_counts(MODEL), "foreign")
        await ledger.submit(make_submission())
        assert await ledger.cancel(await read_record(ledger)) is JobStatus.CANCELED
        await ledger.repair(MODEL)
        assert await queues.counts(MODEL) == JobCounts()


class TestStream:
    async def test_output_is_streamed_once(self, ledger: JobLedger, queues: QueueLedger) -> None:
        await ledger.submit(make_submission())
        assert [await queues.mark_streamed(JOB) for _ in range(3)] == [True, False, False]

    async def test_job_that_does_not_exist_is_not_created(self, queues: QueueLedger, redis_client: Any) -> None:
        assert not await queues.mark_streamed("another-job")
        assert not redis_client.exists(job_keys.job("another-job"))

    async def test_output_of_a_retried_job_is_streamed_again(
        self, ledger: JobLedger, queues: QueueLedger, worker: WorkerLedger
    ) -> None:
        await ledger.submit(make_submission())
        worker.claim(make_lease())
        worker.fail(make_lease(), FAILURE)
        assert await queues.mark_streamed(JOB)
        await ledger.retry_failed(await read_record(ledger), 60)
        assert await queues.mark_streamed(JOB)


class TestShorten:
    async def test_ended_job_is_deleted_sooner_but_never_later(
        self, ledger: JobLedger, queues: QueueLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission())
        await ledger.cancel(await read_record(ledger))
        await queues.shorten(JOB, MODEL, 10.0)
        assert store.remaining_seconds(job_keys.job(JOB)) == pytest.approx(10.0, abs=2)
        await queues.shorten(JOB, MODEL, 10_000.0)
        assert store.remaining_seconds(job_keys.job(JOB)) <= 10.0

    async def test_unfinished_job_is_kept_until_its_end(
        self, ledger: JobLedger, queues: QueueLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission())
        await queues.shorten(JOB, MODEL, 10.0)
        assert store.remaining_seconds(job_keys.job(JOB)) == pytest.approx(LIFETIMES.unfinished, abs=2)
        await ledger.cancel(await read_record(ledger))
        assert store.remaining_seconds(job_keys.job(JOB)) == pytest.approx(10.0, abs=2)
