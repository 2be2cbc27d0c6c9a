"""The limits of one owner (an API key), which submit.lua checks in the round trip that accepts a job."""

from typing import Any

import pytest

from shared.contracts import ScoreScale, WorkClass
from shared.errors import RateLimited
from shared.keys import service_keys
from shared.ledger.job_ledger import JobLedger
from shared.ledger.worker_ledger import WorkerLedger
from shared.owner_limits import OwnerLimits
from shared.partial_results import KnownScores, PairScore
from shared.sharding import ShardSize
from tests.shared.support import OWNER, make_lease, make_request, make_scores, make_submission, read_record


async def submit(ledger: JobLedger, job_id: str, limits: OwnerLimits, **fields: Any) -> None:
    await ledger.submit(make_submission(job_id, owner_limits=limits, **fields))


class TestRequestsPerSecond:
    async def test_a_burst_of_one_second_is_accepted_and_more_is_refused(
        self, ledger: JobLedger, redis_client: Any
    ) -> None:
        limits = OwnerLimits(requests_per_second=5)
        for number in range(5):
            await submit(ledger, f"job-{number}", limits)
        before = sorted(redis_client.keys())
        with pytest.raises(RateLimited, match="requests_per_second is 5") as raised:
            await submit(ledger, "job-5", limits)
        assert (raised.value.retry_after, raised.value.policy) == (1, '"requests";q=5;w=1')
        assert sorted(redis_client.keys()) == before
        await submit(ledger, "job-other", limits, owner="other")

    async def test_a_slow_rate_says_when_to_come_back(self, ledger: JobLedger) -> None:
        limits = OwnerLimits(requests_per_second=0.1)
        await submit(ledger, "job-1", limits)
        with pytest.raises(RateLimited) as raised:
            await submit(ledger, "job-2", limits)
        assert 9 <= raised.value.retry_after <= 10  # type: ignore[operator]

    async def test_requests_whose_pairs_are_known_count(self, ledger: JobLedger) -> None:
        limits = OwnerLimits(requests_per_second=1)
        half = PairScore(0.5, ScoreScale.LOGIT)
        known = KnownScores({0: half, 1: half}, {})
        await submit(ledger, "job-1", limits, shards=0, request=make_request("a", "b"), known_scores=known)
        with pytest.raises(RateLimited):
            await submit(ledger, "job-2", limits, shards=0, request=make_request("a", "b"), known_scores=known)

    async def test_a_repeated_request_is_not_charged(self, ledger: JobLedger) -> None:
        limits = OwnerLimits(requests_per_second=1)
        await submit(ledger, "job-1", limits, idempotency="key")
        await submit(ledger, "job-2", limits, idempotency="key")

    async def test_a_rate_of_the_wrong_type_is_replaced(self, ledger: JobLedger, redis_client: Any) -> None:
        redis_client.hset(service_keys.rate(OWNER) + "requests", "foreign", 1)
        await submit(ledger, "job-1", OwnerLimits(requests_per_second=1))


class TestPairsPerMinute:
    async def test_pairs_of_all_requests_count(self, ledger: JobLedger) -> None:
        limits = OwnerLimits(pairs_per_minute=6)
        await submit(ledger, "job-1", limits, request=make_request(*"abcd"))
        with pytest.raises(RateLimited, match="pairs_per_minute is 6") as raised:
            await submit(ledger, "job-2", limits, request=make_request(*"abc"))
        # One more pair in ten seconds.
        assert 9 <= raised.value.retry_after <= 10  # type: ignore[operator]
        await submit(ledger, "job-3", limits, request=make_request(*"ab"))

    async def test_a_request_above_the_limit_needs_all_of_it(self, ledger: JobLedger) -> None:
        limits = OwnerLimits(pairs_per_minute=3)
        await submit(ledger, "job-1", limits, request=make_request(*"abcdef"))
        with pytest.raises(RateLimited) as raised:
            await submit(ledger, "job-2", limits, request=make_request("a"))
        # Six pairs take two minutes of three; then there is room for one.
        assert 79 <= raised.value.retry_after <= 80  # type: ignore[operator]

    async def test_a_refused_request_is_charged_to_no_rate(self, ledger: JobLedger, redis_client: Any) -> None:
        limits = OwnerLimits(requests_per_second=1, pairs_per_minute=1)
        await submit(ledger, "job-1", OwnerLimits(pairs_per_minute=1), request=make_request("a"))
        with pytest.raises(RateLimited, match="pairs_per_minute"):
            await submit(ledger, "job-2", limits, request=make_request("a"))
        assert not redis_client.exists(service_keys.rate(OWNER) + "requests")


class TestPendingWork:
    async def test_pending_tokens_of_both_classes_count(self, ledger: JobLedger) -> None:
        limits = OwnerLimits(pending_tokens=100)
        await submit(ledger, "job-1", limits, sizes=[ShardSize(2, 60)], work_class=WorkClass.BATCH)
        await submit(ledger, "job-2", limits, sizes=[ShardSize(2, 40)])
        with pytest.raises(RateLimited, match="pending_tokens is 100") as raised:
            await submit(ledger, "job-3", limits, sizes=[ShardSize(2, 1)])
        assert raised.value.retry_after == 2
        await submit(ledger, "job-other", limits, sizes=[ShardSize(2, 100)], owner="other")

    async def test_unfinished_jobs_are_limited_until_one_ends(self, ledger: JobLedger, worker: WorkerLedger) -> None:
        limits = OwnerLimits(unfinished_jobs=2)
        await submit(ledger, "job-1", limits)
        await submit(ledger, "job-2", limits)
        with pytest.raises(RateLimited, match="unfinished_jobs is 2"):
            await submit(ledger, "job-3", limits)
        worker.claim(make_lease(job_id="job-1"))
        worker.finish(make_lease(job_id="job-1"), make_scores(), WorkClass.INTERACTIVE)
        await submit(ledger, "job-3", limits)
        await ledger.cancel(await read_record(ledger, "job-2"))
        await submit(ledger, "job-4", limits)
