"""When Redis has reached its memory limit, accepted jobs continue to their end; only new jobs are refused."""

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from shared.contracts import WorkClass
from shared.errors import StoreUnavailable
from shared.keys import pool_keys
from shared.ledger.job_ledger import JobLedger
from shared.ledger.job_record import JobFailure, JobStatus
from shared.ledger.limits import MAX_TRANSIENT_ERRORS
from shared.ledger.verdicts import ClaimVerdict, FinishVerdict, RenewVerdict
from shared.ledger.worker_ledger import WorkerLedger
from shared.pools.heartbeats import HeartbeatWriter, WorkerState
from shared.queue.messages import WakeUp
from tests.shared.support import (
    JOB,
    MODEL,
    StoreView,
    make_lease,
    make_scores,
    make_submission,
    out_of_memory,
    read_message,
    read_record,
)

INTERACTIVE = WorkClass.INTERACTIVE
FAILURE = JobFailure("scoring_failed", "the engine failed")


@pytest.fixture
async def accepted(ledger: JobLedger, worker: WorkerLedger, redis_client: redis.Redis) -> None:
    """A job of two shards, the first one claimed. Redis has loaded the scripts."""
    await ledger.submit(make_submission(shards=2))
    worker.claim(make_lease())


@pytest.fixture
def full(accepted: None, redis_client: redis.Redis) -> Iterator[None]:
    """Redis is full until the test ends."""
    with out_of_memory(redis_client):
        yield


async def test_a_submission_is_refused_as_a_whole(ledger: JobLedger, redis_client: Any) -> None:
    with out_of_memory(redis_client), pytest.raises(StoreUnavailable, match="out of memory"):
        await ledger.submit(make_submission(idempotency="mine"))
    assert redis_client.keys() == []


@pytest.mark.usefixtures("full")
async def test_claims_and_finishes_complete_the_job(ledger: JobLedger, worker: WorkerLedger) -> None:
    assert worker.claim(make_lease(1)).verdict is ClaimVerdict.RUN
    for shard in (0, 1):
        assert worker.finish(make_lease(shard), make_scores(float(shard)), INTERACTIVE) is FinishVerdict.ACCEPTED
    record = await read_record(ledger)
    assert (record.status, record.shards_left) == (JobStatus.SUCCEEDED, 0)


@pytest.mark.usefixtures("full")
async def test_scores_can_be_read(ledger: JobLedger, worker: WorkerLedger) -> None:
    worker.finish(make_lease(), make_scores(0.5), INTERACTIVE)
    _, shards = await ledger.read_finished(JOB)
    assert [shard.scores for shard in shards] == [[0.5]]


@pytest.mark.usefixtures("full")
async def test_the_request_can_be_read(ledger: JobLedger) -> None:
    assert await ledger.read_request(JOB) == (make_submission(shards=2).request, None)


@pytest.mark.usefixtures("full")
def test_leases_are_renewed(worker: WorkerLedger, store: StoreView) -> None:
    assert worker.renew([make_lease()]) == [RenewVerdict.LIVE]


@pytest.mark.usefixtures("full")
def test_heartbeats_are_written(redis_client: Any) -> None:
    """A worker without heartbeats would be killed."""
    HeartbeatWriter(redis_client, MODEL, "w1").beat(WorkerState.READY, tokens_per_second=1.0)
    assert redis_client.hlen(pool_keys.workers(MODEL)) == 1
    assert redis_client.hexists(pool_keys.measurements(MODEL), "tokens_per_second")


@pytest.mark.usefixtures("full")
async def test_a_job_can_fail(ledger: JobLedger, worker: WorkerLedger) -> None:
    assert worker.fail(make_lease(), FAILURE) is FinishVerdict.ACCEPTED
    assert (await read_record(ledger)).failure == FAILURE


@pytest.mark.usefixtures("full")
def test_a_shard_can_be_released(worker: WorkerLedger, store: StoreView) -> None:
    assert worker.release(make_lease(), INTERACTIVE) is FinishVerdict.ACCEPTED
    assert store.shard()["status"] == "queued"


@pytest.mark.usefixtures("full")
async def test_retries_are_counted_until_the_budget_is_exceeded(
    ledger: JobLedger, worker: WorkerLedger, store: StoreView
) -> None:
    for _ in range(MAX_TRANSIENT_ERRORS + 1):
        worker.claim(make_lease())
        worker.retry_later(make_lease(), 1.0, FAILURE)
    assert (await read_record(ledger)).status is JobStatus.FAILED
    assert len(store.dead_letters()) == 1


@pytest.mark.usefixtures("full")
async def test_a_job_can_be_canceled(ledger: JobLedger) -> None:
    assert await ledger.cancel(await read_record(ledger)) is JobStatus.CANCELED


@pytest.mark.usefixtures("full")
async def test_a_job_can_be_deleted(ledger: JobLedger) -> None:
    assert await ledger.delete(await read_record(ledger))
    assert await ledger.read(JOB) is None


async def test_a_job_expires(ledger: JobLedger, accepted: None, store: StoreView, redis_client: redis.Redis) -> None:
    store.pass_deadline()
    with out_of_memory(redis_client):
        assert await ledger.expire(MODEL) == 1
    assert (await read_record(ledger)).status is JobStatus.EXPIRED


async def test_a_shard_with_an_expired_lease_is_enqueued_again(
    ledger: JobLedger, accepted: None, store: StoreView, redis_client: redis.Redis
) -> None:
    store.end_lease()
    with out_of_memory(redis_client):
        assert await ledger.reconcile(MODEL) == [WakeUp(JOB, 0, INTERACTIVE)]


async def test_a_shard_with_a_live_lease_is_checked_without_an_error(
    ledger: JobLedger, accepted: None, store: StoreView, redis_client: redis.Redis
) -> None:
    store.make_due()
    with out_of_memory(redis_client):
        assert await ledger.reconcile(MODEL) == []


async def test_an_unclaimed_shard_is_enqueued_again(
    ledger: JobLedger, accepted: None, store: StoreView, redis_client: redis.Redis
) -> None:
    store.drop_messages()
    store.make_due(1)
    with out_of_memory(redis_client):
        assert await ledger.reconcile(MODEL) == [WakeUp(JOB, 1, INTERACTIVE)]


async def test_messages_are_sent(ledger: JobLedger, redis_client: redis.Redis) -> None:
    with out_of_memory(redis_client):
        await ledger.enqueue("rerankq:queue:m:batch", [b"message"])


async def test_a_finish_enqueues_the_next_shard(
    ledger: JobLedger, enqueueing_worker: WorkerLedger, store: StoreView, redis_client: redis.Redis
) -> None:
    await ledger.submit(make_submission(shards=2, enqueued=1))
    enqueueing_worker.claim(make_lease())
    store.drop_messages()
    with out_of_memory(redis_client):
        assert enqueueing_worker.finish(make_lease(), make_scores(), INTERACTIVE) is FinishVerdict.ACCEPTED
    assert [read_message(message) for message in store.messages()] == [(JOB, 1)]


async def test_a_release_enqueues_the_shard(
    ledger: JobLedger, enqueueing_worker: WorkerLedger, store: StoreView, redis_client: redis.Redis
) -> None:
    await ledger.submit(make_submission())
    enqueueing_worker.claim(make_lease())
    store.drop_messages()
    with out_of_memory(redis_client):
        assert enqueueing_worker.release(make_lease(), INTERACTIVE) is FinishVerdict.ACCEPTED
    assert [read_message(message) for message in store.messages()] == [(JOB, 0)]
