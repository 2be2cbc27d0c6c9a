import asyncio
import time
from collections.abc import Awaitable
from typing import Any

import pytest
import redis.asyncio

import api.jobs.completions
from api.jobs.completions import POLL_SECONDS, CompletionListener
from shared.contracts import ScoreScale, ShardScores, WorkClass
from shared.keys import job_keys
from shared.ledger.job_ledger import JobLedger
from shared.ledger.worker_ledger import WorkerLedger
from shared.store.client import connect_async
from tests.api.conftest import cancel_other_tasks, wait_until_subscribed
from tests.shared.support import MODEL, make_lease, make_scores, make_submission

POLL_TIMEOUT_SECONDS = POLL_SECONDS + 2
"""One poll, and a margin for a busy machine."""


@pytest.fixture
def without_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only notifications complete jobs."""
    monkeypatch.setattr(api.jobs.completions, "POLL_SECONDS", 60.0)


async def seconds_until(waiting: Awaitable[object]) -> float:
    started = time.monotonic()
    async with asyncio.timeout(POLL_TIMEOUT_SECONDS):
        await waiting
    return time.monotonic() - started


async def submit(ledger: JobLedger, job_id: str) -> None:
    await ledger.submit(make_submission(job_id))


def finish(client: Any, job_id: str) -> None:
    worker = WorkerLedger(client, MODEL)
    worker.claim(make_lease(job_id=job_id))
    worker.finish(make_lease(job_id=job_id), make_scores(), WorkClass.INTERACTIVE)


def end_silently(client: Any, job_id: str) -> None:
    """The job ends, and its notification is lost."""
    client.hset(job_keys.job(job_id), "status", "succeeded")


@pytest.mark.usefixtures("without_polling")
async def test_finished_job_is_completed_at_once(
    completions: CompletionListener, ledger: JobLedger, redis_client: Any
) -> None:
    with completions.expect("job-1") as ended:
        await submit(ledger, "job-1")
        finish(redis_client, "job-1")
        assert await seconds_until(ended.wait()) < POLL_SECONDS / 2


@pytest.mark.usefixtures("without_polling")
async def test_every_waiter_of_the_job_is_notified_and_no_other(
    completions: CompletionListener, ledger: JobLedger, redis_client: Any
) -> None:
    for job_id in ("job-1", "job-2"):
        await submit(ledger, job_id)
    with completions.expect("job-1") as one, completions.expect("job-1") as two, completions.expect("job-2") as other:
        finish(redis_client, "job-1")
        await seconds_until(asyncio.gather(one.wait(), two.wait()))
        assert not other.is_set()


@pytest.mark.usefixtures("without_polling")
async def test_notification_includes_a_small_result(
    completions: CompletionListener, ledger: JobLedger, redis_client: Any
) -> None:
    with completions.expect("job-1") as ended:
        await submit(ledger, "job-1")
        finish(redis_client, "job-1")
        await seconds_until(ended.wait())
        assert ended.scores == redis_client.hget(job_keys.results("job-1"), 0)


@pytest.mark.usefixtures("without_polling")
@pytest.mark.parametrize(
    ("shards", "scores"), [(2, make_scores()), (1, ShardScores(scores=[0.123456789] * 1000, scale=ScoreScale.LOGIT))]
)
async def test_notification_omits_large_results_and_results_of_several_shards(
    completions: CompletionListener, ledger: JobLedger, redis_client: Any, shards: int, scores: ShardScores
) -> None:
    worker = WorkerLedger(redis_client, MODEL)
    with completions.expect("job-1") as ended:
        await ledger.submit(make_submission("job-1", shards=shards))
        for shard in range(shards):
            worker.claim(make_lease(shard, job_id="job-1"))
            worker.finish(make_lease(shard, job_id="job-1"), scores, WorkClass.INTERACTIVE)
        await seconds_until(ended.wait())
        assert ended.scores is None


@pytest.mark.usefixtures("without_polling")
async def test_notification_of_a_canceled_job_has_no_result(completions: CompletionListener, ledger: JobLedger) -> None:
    with completions.expect("job-1") as ended:
        await submit(ledger, "job-1")
        record = await ledger.read("job-1")
        assert record is not None
        await ledger.cancel(record)
        await seconds_until(ended.wait())
        assert ended.scores is None


@pytest.mark.usefixtures("without_polling")
class TestSeveralProcesses:
    """Each process has a ledger of its own, and with it a name."""

    async def test_a_process_that_waits_for_the_job_of_another_is_notified(
        self, completions: CompletionListener, ledger: JobLedger, async_client: redis.asyncio.Redis, redis_client: Any
    ) -> None:
        await submit(JobLedger(async_client), "job-1")
        with completions.expect("job-1") as ended:
            record = await ledger.read("job-1")
            assert record is not None
            await ledger.listen(record)
            finish(redis_client, "job-1")
            assert await seconds_until(ended.wait()) < POLL_SECONDS / 2

    async def test_a_process_that_submits_the_job_again_is_notified(
        self, completions: CompletionListener, ledger: JobLedger, async_client: redis.asyncio.Redis, redis_client: Any
    ) -> None:
        """A batch runner that continues the batch of a runner that died."""
        await submit(JobLedger(async_client), "job-1")
        with completions.expect("job-1") as ended:
            await submit(ledger, "job-1")
            finish(redis_client, "job-1")
            assert await seconds_until(ended.wait()) < POLL_SECONDS / 2


async def test_polling_replaces_a_lost_notification(
    completions: CompletionListener, ledger: JobLedger, redis_client: Any
) -> None:
    with completions.expect("job-1") as ended:
        await submit(ledger, "job-1")
        end_silently(redis_client, "job-1")
        await seconds_until(ended.wait())


async def test_job_that_ended_before_the_wait_is_completed(
    completions: CompletionListener, ledger: JobLedger, redis_client: Any
) -> None:
    await submit(ledger, "job-1")
    finish(redis_client, "job-1")
    with completions.expect("job-1") as ended:
        await seconds_until(ended.wait())


async def test_unfinished_and_unknown_jobs_are_not_completed(
    completions: CompletionListener, ledger: JobLedger
) -> None:
    with completions.expect("job-1") as ended, completions.expect("job-x") as unknown:
        await submit(ledger, "job-1")
        await asyncio.sleep(POLL_SECONDS + 0.2)
        assert not ended.is_set()
        assert not unknown.is_set()


async def test_accepted_job_that_redis_no_longer_has_is_lost(
    completions: CompletionListener, ledger: JobLedger, redis_client: Any
) -> None:
    with completions.expect("job-1") as lost, completions.expect("job-x") as not_accepted:
        await submit(ledger, "job-1")
        lost.accepted = True
        redis_client.flushall()
        await seconds_until(lost.wait())
        assert lost.lost
        assert not not_accepted.is_set()


async def test_malformed_notifications_are_ignored(
    completions: CompletionListener, ledger: JobLedger, redis_client: Any
) -> None:
    with completions.expect("job-1") as ended:
        await submit(ledger, "job-1")
        for message in (b"", b" ", b"\xff\xfe", b"job-\xff {}"):
            redis_client.publish(job_keys.job_ended_channel(ledger.listener), message)
        finish(redis_client, "job-1")
        await seconds_until(ended.wait())


async def test_damaged_jobs_are_lost_and_do_not_affect_others(
    completions: CompletionListener, ledger: JobLedger, redis_client: Any
) -> None:
    with (
        completions.expect("job-1") as ended,
        completions.expect("job-2") as wrong_type,
        completions.expect("job-3") as wrong_status,
    ):
        for job_id in ("job-1", "job-2", "job-3"):
            await submit(ledger, job_id)
        wrong_type.accepted = wrong_status.accepted = True
        redis_client.delete(job_keys.job("job-2"))
        redis_client.set(job_keys.job("job-2"), "a string")
        redis_client.hset(job_keys.job("job-3"), "status", "nonsense")
        end_silently(redis_client, "job-1")
        for event in (ended, wrong_type, wrong_status):
            await seconds_until(event.wait())
        assert (ended.lost, wrong_type.lost, wrong_status.lost) == (False, True, True)


async def test_lost_connection_is_restored(
    completions: CompletionListener, ledger: JobLedger, async_client: redis.asyncio.Redis, redis_client: Any
) -> None:
    with completions.expect("job-1") as ended:
        await submit(ledger, "job-1")
        assert redis_client.execute_command("CLIENT", "KILL", "TYPE", "pubsub") == 1
        end_silently(redis_client, "job-1")
        await seconds_until(ended.wait())

    await wait_until_subscribed(async_client)
    with completions.expect("job-2") as ended:
        await submit(ledger, "job-2")
        finish(redis_client, "job-2")
        assert await seconds_until(ended.wait()) < POLL_SECONDS / 2


async def test_finished_waits_are_removed(
    completions: CompletionListener, ledger: JobLedger, redis_client: Any
) -> None:
    with completions.expect("job-1"), completions.expect("job-1"), completions.expect("job-2"):
        assert set(completions._waiting) == {"job-1", "job-2"}
    with pytest.raises(ZeroDivisionError), completions.expect("job-3"):
        raise ZeroDivisionError
    redis_client.publish(job_keys.job_ended_channel(ledger.listener), "job-4")
    await asyncio.sleep(0.05)
    assert dict(completions._waiting) == {}


async def test_run_can_be_cancelled(async_client: redis.asyncio.Redis, ledger: JobLedger) -> None:
    running = asyncio.create_task(CompletionListener(async_client, ledger).run())
    await wait_until_subscribed(async_client)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(5):
            await running


async def test_run_can_be_cancelled_while_it_connects(redis_url: str) -> None:
    for steps in range(14):
        async with connect_async(redis_url) as client:
            running = asyncio.create_task(CompletionListener(client, JobLedger(client)).run())
            for _ in range(steps):
                await asyncio.sleep(0)
            running.cancel()
            await asyncio.wait([running], timeout=1)
            ended = running.done()
            await cancel_other_tasks()
            assert ended, f"cancelled after {steps} steps, and still running"
