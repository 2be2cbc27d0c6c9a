"""When submit refuses a job because of pending work, and how a job moves from the interactive to the batch class."""

from typing import Any

import pytest

from shared.contracts import ScoreScale, WorkClass
from shared.errors import Overloaded
from shared.keys import pool_keys, queue_keys
from shared.ledger.job_ledger import JobLedger
from shared.ledger.submission import ExceededLimit, PendingLimits
from shared.ledger.verdicts import ClaimRequest, FinishVerdict, FreeSlots
from shared.ledger.worker_ledger import WorkerLedger
from shared.partial_results import KnownScores, PairScore
from shared.pools.signals import read_signals_blocking
from shared.sharding import ShardSize
from tests.shared.support import (
    JOB,
    MODEL,
    StoreView,
    make_lease,
    make_request,
    make_scores,
    make_submission,
    read_record,
)

INTERACTIVE, BATCH = WorkClass.INTERACTIVE, WorkClass.BATCH
AHEAD = PendingLimits(tokens_ahead=100, tokens_per_second=10.0)


async def submit(ledger: JobLedger, job_id: str, tokens: int, **fields: Any) -> None:
    await ledger.submit(make_submission(job_id, sizes=[ShardSize(2, tokens)], **fields))


class TestTokensAhead:
    async def test_a_job_behind_too_much_work_is_refused_and_leaves_nothing(
        self, ledger: JobLedger, redis_client: Any
    ) -> None:
        await submit(ledger, "job-1", 125)
        before = sorted(redis_client.keys())
        with pytest.raises(Overloaded, match="3 s longer than this request may wait") as raised:
            await submit(ledger, "job-2", 5, limits=AHEAD)
        assert raised.value.retry_after == 3
        assert sorted(redis_client.keys()) == before

    async def test_its_own_size_does_not_count(self, ledger: JobLedger) -> None:
        await submit(ledger, "job-1", 100)
        await submit(ledger, "job-2", 10_000, limits=AHEAD)

    async def test_another_class_does_not_count(self, ledger: JobLedger) -> None:
        await submit(ledger, "job-1", 10_000, work_class=BATCH)
        await submit(ledger, "job-2", 10, limits=AHEAD)

    async def test_finished_work_does_not_count(self, ledger: JobLedger, worker: WorkerLedger) -> None:
        await submit(ledger, "job-1", 101)
        await submit(ledger, "job-2", 1)
        _, (claimed, *_) = worker.finish_and_claim([], ClaimRequest("worker-1", "token", FreeSlots(2, 0)))
        worker.finish(claimed.lease, make_scores(), INTERACTIVE)
        await submit(ledger, "job-3", 1, limits=AHEAD)

    async def test_another_owner_counts_with_its_share_only(self, ledger: JobLedger) -> None:
        await submit(ledger, "job-flood", 1_000_000, owner="flood")
        with pytest.raises(Overloaded):
            await submit(ledger, "job-1", 1, owner="flood", limits=AHEAD)
        # While 100 tokens of this owner are scored, 100 of the other one are.
        await submit(ledger, "job-2", 100, owner="small", limits=AHEAD)
        with pytest.raises(Overloaded) as raised:
            await submit(ledger, "job-3", 50, owner="small", limits=AHEAD)
        assert raised.value.retry_after == 15

    async def test_shares_are_weighted(self, ledger: JobLedger) -> None:
        await submit(ledger, "job-flood", 1_000_000, owner="flood", weight=4)
        await submit(ledger, "job-1", 25, owner="small", limits=AHEAD)
        with pytest.raises(Overloaded):
            await submit(ledger, "job-2", 1, owner="other", weight=0.01, limits=AHEAD)

    async def test_without_throughput_there_is_no_retry_after(self, ledger: JobLedger) -> None:
        await submit(ledger, "job-1", 125)
        with pytest.raises(Overloaded, match="too long for this request") as raised:
            await submit(ledger, "job-2", 5, limits=PendingLimits(tokens_ahead=100))
        assert raised.value.retry_after is None


class TestPendingWork:
    async def test_pending_tokens_of_both_classes_are_limited(self, ledger: JobLedger) -> None:
        limits = PendingLimits(tokens=100)
        await submit(ledger, "job-1", 60, work_class=BATCH)
        await submit(ledger, "job-2", 40, limits=limits)
        with pytest.raises(Overloaded, match="at most 100 estimated tokens may be pending"):
            await submit(ledger, "job-3", 1, limits=limits)

    async def test_a_job_alone_may_be_of_any_size(self, ledger: JobLedger) -> None:
        await submit(ledger, "job-1", 1000, limits=PendingLimits(tokens=100))

    async def test_pending_jobs_are_limited(self, ledger: JobLedger) -> None:
        limits = PendingLimits(jobs=2)
        await submit(ledger, "job-1", 1, limits=limits)
        await submit(ledger, "job-2", 1, limits=limits, work_class=BATCH)
        with pytest.raises(Overloaded, match="at most 2 jobs may be pending") as raised:
            await submit(ledger, "job-3", 1, limits=limits)
        assert raised.value.retry_after == 10

    async def test_a_job_whose_pairs_are_all_known_is_not_refused(self, ledger: JobLedger) -> None:
        await submit(ledger, "job-1", 1000)
        known = KnownScores(
            {0: PairScore(score=1.0, scale=ScoreScale.LOGIT), 1: PairScore(score=0.0, scale=ScoreScale.LOGIT)}, {}
        )
        request = make_request("a", "b")
        submission = make_submission(
            "job-2", shards=0, request=request, known_scores=known, limits=PendingLimits(0, 0, 0)
        )
        assert not (await ledger.submit(submission)).existing

    async def test_an_existing_job_is_returned_despite_the_load(self, ledger: JobLedger) -> None:
        await submit(ledger, "job-1", 1000, idempotency="key")
        acceptance = await ledger.submit(
            make_submission("job-2", sizes=[ShardSize(2, 1000)], idempotency="key", limits=PendingLimits(0, 0, 0))
        )
        assert (acceptance.job_id, acceptance.existing) == ("job-1", True)

    @pytest.mark.parametrize("limit", ExceededLimit)
    def test_every_limit_has_an_error(self, limit: ExceededLimit) -> None:
        error = PendingLimits(1, 1, 1, tokens_per_second=2.0).error("m", limit, 3)
        assert error.message.startswith("model 'm' is overloaded: ")
        assert error.retry_after in (2, 10)


class TestDemotion:
    async def test_a_job_moves_to_the_batch_class_with_its_load_its_order_and_its_messages(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView, redis_client: Any
    ) -> None:
        await ledger.submit(make_submission(shards=3))
        worker.claim(make_lease())
        await ledger.submit(make_submission("job-2"))
        before = read_signals_blocking(redis_client, [MODEL], 0.0)[MODEL]
        assert await ledger.demote(JOB, MODEL)
        assert (await read_record(ledger)).work_class is BATCH
        after = read_signals_blocking(redis_client, [MODEL], 0.0)[MODEL]
        assert (after.batch.jobs, after.batch.running_jobs, after.batch.running_tokens) == (1, 1, 10)
        assert after.batch.queued_tokens == 11 + 12
        assert after.interactive.queued_tokens == before.interactive.queued_tokens - 23
        assert (after.interactive.jobs, after.interactive.running_tokens) == (1, 0)
        assert redis_client.hgetall(pool_keys.backlog(MODEL, BATCH)) == {b"owner-1": b"33"}
        assert len(redis_client.lrange(queue_keys.queue(MODEL, BATCH), 0, -1)) == 2
        _, claimed = worker.finish_and_claim([], ClaimRequest("worker-1", "token", FreeSlots(9, 9)))
        assert [(shard.lease.job_id, shard.work_class) for shard in claimed] == [
            ("job-2", INTERACTIVE),
            (JOB, BATCH),
            (JOB, BATCH),
        ]

    async def test_its_leased_shards_continue(self, ledger: JobLedger, worker: WorkerLedger) -> None:
        await ledger.submit(make_submission())
        worker.claim(make_lease())
        assert await ledger.demote(JOB, MODEL)
        assert worker.finish(make_lease(), make_scores(), INTERACTIVE) is FinishVerdict.ACCEPTED

    async def test_batch_jobs_and_ended_jobs_do_not_change(self, ledger: JobLedger) -> None:
        await ledger.submit(make_submission(work_class=BATCH))
        assert not await ledger.demote(JOB, MODEL)
        await ledger.submit(make_submission("job-2"))
        await ledger.cancel(await read_record(ledger, "job-2"))
        assert not await ledger.demote("job-2", MODEL)
        assert not await ledger.demote("job-missing", MODEL)
