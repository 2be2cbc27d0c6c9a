import asyncio
import time
from collections.abc import Awaitable
from typing import Any

import pytest
import redis.asyncio

import api.jobs.completions
from api.jobs.completions import SWEEP_SECONDS, CompletionListener
from shared.contracts import ScoreScale, ShardScores, WorkClass
from shared.keys import job_keys
from shared.ledger.job_ledger import JobLedger
from shared.ledger.worker_ledger import WorkerLedger
from shared.store.client import connect_async
from tests.api.conftest import stop_background, until_subscribed
from tests.shared.support import MODEL, make_lease, make_scores, make_submission

SWEPT_SECONDS = SWEEP_SECONDS + 2
"""A sweep comes once a second; the rest is for a busy machine."""


@pytest.fixture
def without_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the doorbell wakes."""
    monkeypatch.setattr(api.jobs.completions, "SWEEP_SECONDS", 60.0)


async def seconds_until(waiting: Awaitable[object]) -> float:
    started = time.monotonic()
    async with asyncio.timeout(SWEPT_SECONDS):
        await waiting
    return time.monotonic() - started


async def submit(ledger: JobLedger, job_id: str) -> None:
    await ledger.submit(make_submission(job_id))


def finish(client: Any, job_id: str) -> None:
    worker = WorkerLedger(client, MODEL)
    worker.claim(make_lease(job_id=job_id))
    worker.finish(make_lease(job_id=job_id), make_scores(), WorkClass.INTERACTIVE)


def end_silently(client: Any, job_id: str) -> None:
    """The job ends, and its doorbell is lost on the way."""
    client.hset(job_keys.job(job_id), "status", "succeeded")


@pytest.mark.usefixtures("without_sweeps")
async def test_a_finished_job_wakes_its_waiter_at_once(
    replies: CompletionListener, ledger: JobLedger, redis_client: Any
) -> None:
    with replies.expect("job-1") as ended:
        await submit(ledger, "job-1")
        finish(redis_client, "job-1")
        assert await seconds_until(ended.wait()) < SWEEP_SECONDS / 2


@pytest.mark.usefixtures("without_sweeps")
async def test_everybody_who_waits_for_a_job_is_woken_and_nobody_else(
    replies: CompletionListener, ledger: JobLedger, redis_client: Any
) -> None:
    for job_id in ("job-1", "job-2"):
        await submit(ledger, job_id)
    with replies.expect("job-1") as one, replies.expect("job-1") as two, replies.expect("job-2") as other:
        finish(redis_client, "job-1")
        await seconds_until(asyncio.gather(one.wait(), two.wait()))
        assert not other.is_set()


@pytest.mark.usefixtures("without_sweeps")
async def test_a_small_result_comes_with_its_doorbell(
    replies: CompletionListener, ledger: JobLedger, redis_client: Any
) -> None:
    with replies.expect("job-1") as ended:
        await submit(ledger, "job-1")
        finish(redis_client, "job-1")
        await seconds_until(ended.wait())
        assert ended.scores == redis_client.hget(job_keys.results("job-1"), 0)


@pytest.mark.usefixtures("without_sweeps")
@pytest.mark.parametrize(
    ("shards", "scores"), [(2, make_scores()), (1, ShardScores(scores=[0.123456789] * 1000, scale=ScoreScale.LOGIT))]
)
async def test_a_large_result_and_one_in_parts_are_left_to_be_read(
    replies: CompletionListener, ledger: JobLedger, redis_client: Any, shards: int, scores: ShardScores
) -> None:
    worker = WorkerLedger(redis_client, MODEL)
    with replies.expect("job-1") as ended:
        await ledger.submit(make_submission("job-1", shards=shards))
        for shard in range(shards):
            worker.claim(make_lease(shard, job_id="job-1"))
            worker.finish(make_lease(shard, job_id="job-1"), scores, WorkClass.INTERACTIVE)
        await seconds_until(ended.wait())
        assert ended.scores is None


@pytest.mark.usefixtures("without_sweeps")
async def test_an_end_without_a_result_has_none_to_tell(replies: CompletionListener, ledger: JobLedger) -> None:
    with replies.expect("job-1") as ended:
        await submit(ledger, "job-1")
        record = await ledger.read("job-1")
        assert record is not None
        await ledger.cancel(record)
        await seconds_until(ended.wait())
        assert ended.scores is None


async def test_a_lost_doorbell_costs_a_second_not_the_answer(
    replies: CompletionListener, ledger: JobLedger, redis_client: Any
) -> None:
    with replies.expect("job-1") as ended:
        await submit(ledger, "job-1")
        end_silently(redis_client, "job-1")
        await seconds_until(ended.wait())


async def test_what_ended_before_anybody_waited_is_found_too(
    replies: CompletionListener, ledger: JobLedger, redis_client: Any
) -> None:
    await submit(ledger, "job-1")
    finish(redis_client, "job-1")
    with replies.expect("job-1") as ended:
        await seconds_until(ended.wait())


async def test_a_job_that_goes_on_wakes_nobody(replies: CompletionListener, ledger: JobLedger) -> None:
    with replies.expect("job-1") as ended, replies.expect("job-x") as gone:
        await submit(ledger, "job-1")
        await asyncio.sleep(SWEEP_SECONDS + 0.2)
        assert not ended.is_set()
        assert not gone.is_set()


async def test_a_job_that_was_accepted_and_is_gone_is_lost(
    replies: CompletionListener, ledger: JobLedger, redis_client: Any
) -> None:
    with replies.expect("job-1") as lost, replies.expect("job-x") as not_there_yet:
        await submit(ledger, "job-1")
        lost.accepted = True
        redis_client.flushall()
        await seconds_until(lost.wait())
        assert lost.lost
        assert not not_there_yet.is_set()


async def test_what_is_no_news_is_not_listened_to(
    replies: CompletionListener, ledger: JobLedger, redis_client: Any
) -> None:
    with replies.expect("job-1") as ended:
        await submit(ledger, "job-1")
        for nonsense in (b"", b" ", b"\xff\xfe", b"job-\xff {}"):
            redis_client.publish(job_keys.JOB_ENDED_CHANNEL, nonsense)
        finish(redis_client, "job-1")
        await seconds_until(ended.wait())


async def test_a_job_that_cannot_be_read_keeps_nobody_else_waiting(
    replies: CompletionListener, ledger: JobLedger, redis_client: Any
) -> None:
    with replies.expect("job-1") as ended, replies.expect("job-2") as spoiled, replies.expect("job-3") as strange:
        for job_id in ("job-1", "job-2", "job-3"):
            await submit(ledger, job_id)
        spoiled.accepted = strange.accepted = True
        redis_client.delete(job_keys.job("job-2"))
        redis_client.set(job_keys.job("job-2"), "something else")
        redis_client.hset(job_keys.job("job-3"), "status", "nonsense")
        end_silently(redis_client, "job-1")
        for event in (ended, spoiled, strange):
            await seconds_until(event.wait())
        assert (ended.lost, spoiled.lost, strange.lost) == (False, True, True)


async def test_a_killed_connection_is_made_again(
    replies: CompletionListener, ledger: JobLedger, async_client: redis.asyncio.Redis, redis_client: Any
) -> None:
    with replies.expect("job-1") as lost:
        await submit(ledger, "job-1")
        assert redis_client.execute_command("CLIENT", "KILL", "TYPE", "pubsub") == 1
        end_silently(redis_client, "job-1")
        await seconds_until(lost.wait())

    await until_subscribed(async_client)
    with replies.expect("job-2") as ended:
        await submit(ledger, "job-2")
        finish(redis_client, "job-2")
        assert await seconds_until(ended.wait()) < SWEEP_SECONDS / 2


async def test_nothing_is_kept_of_those_who_no_longer_wait(replies: CompletionListener, redis_client: Any) -> None:
    with replies.expect("job-1"), replies.expect("job-1"), replies.expect("job-2"):
        assert set(replies._waiting) == {"job-1", "job-2"}
    with pytest.raises(ZeroDivisionError), replies.expect("job-3"):
        raise ZeroDivisionError
    redis_client.publish(job_keys.JOB_ENDED_CHANNEL, "job-4")
    await asyncio.sleep(0.05)
    assert dict(replies._waiting) == {}


async def test_it_ends_when_it_is_told_to(async_client: redis.asyncio.Redis, ledger: JobLedger) -> None:
    running = asyncio.create_task(CompletionListener(async_client, ledger).run())
    await until_subscribed(async_client)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(5):
            await running


async def test_it_ends_when_it_is_told_to_while_it_connects(redis_url: str) -> None:
    for steps in range(14):
        async with connect_async(redis_url) as client:
            running = asyncio.create_task(CompletionListener(client, JobLedger(client)).run())
            for _ in range(steps):
                await asyncio.sleep(0)
            running.cancel()
            await asyncio.wait([running], timeout=1)
            ended = running.done()
            await stop_background()
            assert ended, f"cancelled after {steps} steps, and still running"
