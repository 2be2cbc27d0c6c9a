import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis

from shared import keys
from shared.contracts import WorkClass
from shared.errors import StoreUnavailable
from shared.jobs import JobFailure, JobRecord, JobState
from shared.ledger import Acceptance, Ledger
from shared.redis_client import RETRY_AFTER_SECONDS, connect, connect_async
from shared.worker_ledger import ClaimVerdict, FinishVerdict, WorkerLedger
from tests.shared.conftest import LIFETIMES
from tests.shared.support import (
    MODEL,
    OWNER,
    dead_redis_url,
    make_lease,
    make_scores,
    make_submission,
    out_of_memory,
)

JOB = "job-1"
INTERACTIVE = WorkClass.INTERACTIVE
QUEUE = keys.queue(MODEL, WorkClass.INTERACTIVE)
FAILURE = JobFailure("scoring_failed", "the engine gave up")


@pytest.fixture
def worker(redis_client: redis.Redis) -> WorkerLedger:
    return WorkerLedger(redis_client, MODEL)


@pytest.fixture
def forgetful_worker(redis_client: redis.Redis) -> WorkerLedger:
    """Its leases are over as soon as they are given."""
    return WorkerLedger(redis_client, MODEL, lease_seconds=0.001)


@pytest.fixture
def announced(redis_client: Any) -> Iterator[Callable[[], list[str]]]:
    """Answers the ids that were published as finished since it was last asked."""
    with redis_client.pubsub() as channel:
        channel.subscribe(keys.FINISHED_CHANNEL)

        def read() -> list[str]:
            redis_client.publish(keys.FINISHED_CHANNEL, "that is all")
            ids: list[str] = []
            while (message := channel.get_message(timeout=5)) is not None:
                if message["data"] == b"that is all":
                    return ids
                if message["type"] == "message":
                    ids.append(message["data"].decode())
            raise AssertionError("the channel went quiet")

        yield read


async def read(ledger: Ledger, job_id: str = JOB) -> JobRecord:
    record = await ledger.read(job_id)
    assert record is not None
    return record


def outstanding(client: Any) -> list[bytes]:
    members: list[bytes] = client.zrange(keys.outstanding(MODEL), 0, -1)
    return members


def remaining_seconds(client: Any, key: str | bytes) -> float:
    milliseconds: int = client.pttl(key)
    return milliseconds / 1000


class TestSubmit:
    async def test_job_request_shards_outstanding_members_and_doorbells_appear_together(
        self, ledger: Ledger, redis_client: redis.Redis
    ) -> None:
        assert await ledger.submit(make_submission(shards=2, deadline_seconds=30)) == Acceptance(JOB, existing=False)

        record = await read(ledger)
        assert record == JobRecord(
            id=JOB,
            state=JobState.QUEUED,
            model=MODEL,
            dialect="superset",
            owner=OWNER,
            work_class=WorkClass.INTERACTIVE,
            pairs=2,
            shards=2,
            left=2,
            created_ms=record.created_ms,
            started_ms=0,
            finished_ms=0,
            deadline_ms=record.created_ms + 30_000,
            failure=None,
        )
        assert await ledger.read_request(JOB) == make_submission(shards=2).request
        assert redis_client.hgetall(keys.shards(JOB)) == {b"0:state": b"queued", b"1:state": b"queued"}
        assert outstanding(redis_client) == [b"job-1/0", b"job-1/1"]
        assert redis_client.lrange(QUEUE, 0, -1) == [b"doorbell job-1/1", b"doorbell job-1/0"]

    async def test_the_time_of_acceptance_is_redis_own(self, ledger: Ledger, redis_client: Any) -> None:
        def store_clock_ms() -> int:
            seconds, microseconds = redis_client.time()
            return int(seconds) * 1000 + int(microseconds) // 1000

        before = store_clock_ms()
        await ledger.submit(make_submission())
        assert before <= (await read(ledger)).created_ms <= store_clock_ms()

    async def test_the_oldest_doorbell_is_popped_first(self, ledger: Ledger, redis_client: redis.Redis) -> None:
        await ledger.submit(make_submission("job-1"))
        await ledger.submit(make_submission("job-2"))
        assert redis_client.rpop(QUEUE) == b"doorbell job-1/0"

    async def test_batch_work_has_a_queue_of_its_own(self, ledger: Ledger, redis_client: redis.Redis) -> None:
        await ledger.submit(replace(make_submission(), work_class=WorkClass.BATCH))
        assert redis_client.llen(QUEUE) == 0
        assert redis_client.llen(keys.queue(MODEL, WorkClass.BATCH)) == 1

    async def test_a_submit_that_is_sent_again_changes_nothing(
        self, ledger: Ledger, worker: WorkerLedger, redis_client: redis.Redis
    ) -> None:
        await ledger.submit(make_submission())
        worker.claim(make_lease())
        worker.finish(make_lease(), make_scores(), INTERACTIVE)
        await ledger.submit(make_submission())
        assert (await read(ledger)).state is JobState.SUCCEEDED
        assert redis_client.llen(QUEUE) == 1


class TestReading:
    async def test_what_is_not_there_is_none(self, ledger: Ledger) -> None:
        assert await ledger.read("job-x") is None
        assert await ledger.read_request("job-x") is None
        assert await ledger.read_finished("job-x") == (None, [])

    async def test_many_states_at_once(self, ledger: Ledger, worker: WorkerLedger) -> None:
        for job_id in ("job-1", "job-2"):
            await ledger.submit(make_submission(job_id))
        worker.claim(make_lease(job_id="job-2"))
        assert await ledger.states(["job-1", "job-2", "job-x"]) == {
            "job-1": JobState.QUEUED,
            "job-2": JobState.RUNNING,
            "job-x": None,
        }

    async def test_scores_come_back_in_the_order_of_the_shards(self, ledger: Ledger, worker: WorkerLedger) -> None:
        await ledger.submit(make_submission(shards=11))
        for shard in reversed(range(11)):
            worker.claim(make_lease(shard, f"token {shard}"))
            worker.finish(make_lease(shard, f"token {shard}"), make_scores(float(shard)), INTERACTIVE)
        record, shards = await ledger.read_finished(JOB)
        assert record is not None
        assert record.state is JobState.SUCCEEDED
        assert [shard.scores for shard in shards] == [[float(number)] for number in range(11)]


class TestClaim:
    async def test_a_queued_shard_is_given_with_its_request_and_its_wait(
        self, ledger: Ledger, worker: WorkerLedger
    ) -> None:
        await ledger.submit(make_submission())
        await asyncio.sleep(0.01)
        claim = worker.claim(make_lease())
        assert (claim.verdict, claim.request) == (ClaimVerdict.RUN, make_submission().request)
        assert 10 <= claim.queue_ms < 60_000

        record = await read(ledger)
        assert record.state is JobState.RUNNING
        assert record.started_ms == record.created_ms + claim.queue_ms

    def test_an_unknown_job_is_gone(self, worker: WorkerLedger) -> None:
        assert worker.claim(make_lease(job_id="job-x")).verdict is ClaimVerdict.GONE

    async def test_a_shard_under_a_live_lease_is_held(self, ledger: Ledger, worker: WorkerLedger) -> None:
        await ledger.submit(make_submission())
        worker.claim(make_lease(token="first"))
        assert worker.claim(make_lease(token="second")).verdict is ClaimVerdict.HELD

    async def test_shards_are_claimed_each_for_itself(self, ledger: Ledger, worker: WorkerLedger) -> None:
        await ledger.submit(make_submission(shards=2))
        assert worker.claim(make_lease(token="first")).verdict is ClaimVerdict.RUN
        assert worker.claim(make_lease(1, "second")).verdict is ClaimVerdict.RUN

    async def test_a_scored_shard_of_a_job_that_goes_on_is_done(self, ledger: Ledger, worker: WorkerLedger) -> None:
        await ledger.submit(make_submission(shards=2))
        worker.claim(make_lease())
        worker.finish(make_lease(), make_scores(), INTERACTIVE)
        assert worker.claim(make_lease(token="another")).verdict is ClaimVerdict.DONE

    async def test_a_job_that_has_ended_has_nothing_to_claim(self, ledger: Ledger, worker: WorkerLedger) -> None:
        await ledger.submit(make_submission())
        await ledger.cancel(await read(ledger))
        assert worker.claim(make_lease()).verdict is ClaimVerdict.ENDED

    async def test_past_the_deadline_the_job_expires(
        self,
        ledger: Ledger,
        worker: WorkerLedger,
        redis_client: redis.Redis,
        announced: Callable[[], list[str]],
    ) -> None:
        await ledger.submit(make_submission(deadline_seconds=0.001))
        await asyncio.sleep(0.01)
        assert worker.claim(make_lease()).verdict is ClaimVerdict.ENDED
        assert (await read(ledger)).state is JobState.EXPIRED
        assert outstanding(redis_client) == []
        assert announced() == [JOB]

    async def test_a_claim_that_is_sent_again_is_still_ours(self, ledger: Ledger, worker: WorkerLedger) -> None:
        await ledger.submit(make_submission())
        worker.claim(make_lease())
        assert worker.claim(make_lease()).verdict is ClaimVerdict.RUN


class TestFinish:
    async def test_the_last_shard_makes_the_job_succeed(self, ledger: Ledger, worker: WorkerLedger) -> None:
        await ledger.submit(make_submission(shards=2))
        states = []
        for shard in (0, 1):
            worker.claim(make_lease(shard))
            assert worker.finish(make_lease(shard), make_scores(), INTERACTIVE) is FinishVerdict.ACCEPTED
            record = await read(ledger)
            states.append((record.state, record.left))
        assert states == [(JobState.RUNNING, 1), (JobState.SUCCEEDED, 0)]
        assert record.finished_ms >= record.started_ms >= record.created_ms

    async def test_a_shard_that_is_done_is_no_longer_outstanding(
        self, ledger: Ledger, worker: WorkerLedger, redis_client: redis.Redis
    ) -> None:
        await ledger.submit(make_submission(shards=2))
        worker.claim(make_lease())
        worker.finish(make_lease(), make_scores(), INTERACTIVE)
        assert outstanding(redis_client) == [b"job-1/1"]

    async def test_a_second_finish_of_a_shard_is_stale(self, ledger: Ledger, worker: WorkerLedger) -> None:
        await ledger.submit(make_submission(shards=2))
        worker.claim(make_lease())
        worker.finish(make_lease(), make_scores(0.1, 0.2), INTERACTIVE)
        assert worker.finish(make_lease(), make_scores(0.8, 0.9), INTERACTIVE) is FinishVerdict.STALE
        _, shards = await ledger.read_finished(JOB)
        assert shards == [make_scores(0.1, 0.2)]
        assert (await read(ledger)).left == 1

    async def test_a_finish_after_the_end_is_too_late(self, ledger: Ledger, worker: WorkerLedger) -> None:
        await ledger.submit(make_submission())
        worker.claim(make_lease())
        worker.finish(make_lease(), make_scores(), INTERACTIVE)
        assert worker.finish(make_lease(), make_scores(), INTERACTIVE) is FinishVerdict.ENDED

    def test_a_finish_of_a_job_that_is_gone_is_too_late(self, worker: WorkerLedger) -> None:
        assert worker.finish(make_lease(job_id="job-x"), make_scores(), INTERACTIVE) is FinishVerdict.ENDED

    async def test_nobody_finishes_what_was_never_claimed(self, ledger: Ledger, worker: WorkerLedger) -> None:
        await ledger.submit(make_submission())
        assert worker.finish(make_lease(), make_scores(), INTERACTIVE) is FinishVerdict.STALE

    async def test_a_lease_that_ran_out_fences_its_first_owner_off(
        self, ledger: Ledger, forgetful_worker: WorkerLedger, worker: WorkerLedger
    ) -> None:
        await ledger.submit(make_submission())
        first, second = make_lease(token="first"), make_lease(token="second")
        forgetful_worker.claim(first)
        await asyncio.sleep(0.01)
        assert worker.claim(second).verdict is ClaimVerdict.HELD
        await ledger.reconcile(MODEL)
        assert worker.claim(second).verdict is ClaimVerdict.RUN
        assert worker.finish(first, make_scores(0.1, 0.1), INTERACTIVE) is FinishVerdict.STALE
        assert worker.fail(first, FAILURE) is FinishVerdict.STALE
        assert worker.finish(second, make_scores(0.9, 0.9), INTERACTIVE) is FinishVerdict.ACCEPTED
        _, shards = await ledger.read_finished(JOB)
        assert shards == [make_scores(0.9, 0.9)]

    async def test_an_owner_whose_lease_ran_out_may_finish_while_nobody_else_has_claimed(
        self, ledger: Ledger, forgetful_worker: WorkerLedger
    ) -> None:
        await ledger.submit(make_submission())
        forgetful_worker.claim(make_lease())
        assert forgetful_worker.finish(make_lease(), make_scores(), INTERACTIVE) is FinishVerdict.ACCEPTED


class TestFail:
    async def test_one_failed_shard_fails_the_job(
        self, ledger: Ledger, worker: WorkerLedger, redis_client: redis.Redis
    ) -> None:
        await ledger.submit(make_submission(shards=2))
        worker.claim(make_lease(1))
        assert worker.fail(make_lease(1), FAILURE) is FinishVerdict.ACCEPTED
        record = await read(ledger)
        assert (record.state, record.failure) == (JobState.FAILED, FAILURE)
        assert outstanding(redis_client) == []

    async def test_a_failure_under_a_foreign_token_is_stale(self, ledger: Ledger, worker: WorkerLedger) -> None:
        await ledger.submit(make_submission())
        worker.claim(make_lease())
        assert worker.fail(make_lease(token="another"), FAILURE) is FinishVerdict.STALE
        assert (await read(ledger)).state is JobState.RUNNING

    async def test_a_failure_after_the_end_is_too_late(self, ledger: Ledger, worker: WorkerLedger) -> None:
        await ledger.submit(make_submission())
        worker.claim(make_lease())
        worker.finish(make_lease(), make_scores(), INTERACTIVE)
        assert worker.fail(make_lease(), FAILURE) is FinishVerdict.ENDED
        assert worker.fail(make_lease(job_id="job-x"), FAILURE) is FinishVerdict.ENDED
        record = await read(ledger)
        assert (record.state, record.failure) == (JobState.SUCCEEDED, None)


class TestCancel:
    async def test_a_canceled_job_stays_canceled(self, ledger: Ledger, redis_client: redis.Redis) -> None:
        await ledger.submit(make_submission())
        record = await read(ledger)
        assert await ledger.cancel(record) is JobState.CANCELED
        canceled = await read(ledger)
        assert await ledger.cancel(record) is JobState.CANCELED
        assert await read(ledger) == canceled
        assert outstanding(redis_client) == []

    async def test_a_job_that_succeeded_stays_as_it_is(self, ledger: Ledger, worker: WorkerLedger) -> None:
        await ledger.submit(make_submission())
        worker.claim(make_lease())
        worker.finish(make_lease(), make_scores(), INTERACTIVE)
        succeeded = await ledger.read_finished(JOB)
        assert await ledger.cancel(await read(ledger)) is JobState.SUCCEEDED
        assert await ledger.read_finished(JOB) == succeeded

    async def test_a_running_shard_of_a_canceled_job_is_not_accepted(
        self, ledger: Ledger, worker: WorkerLedger
    ) -> None:
        await ledger.submit(make_submission())
        worker.claim(make_lease())
        await ledger.cancel(await read(ledger))
        assert worker.finish(make_lease(), make_scores(), INTERACTIVE) is FinishVerdict.ENDED
        _, shards = await ledger.read_finished(JOB)
        assert shards == []

    async def test_a_job_that_is_gone_has_no_state(self, ledger: Ledger) -> None:
        await ledger.submit(make_submission())
        record = await read(ledger)
        await ledger.delete(record)
        assert await ledger.cancel(record) is None


class TestDelete:
    @pytest.mark.parametrize("finished", [False, True])
    async def test_no_trace_stays_but_the_doorbell(
        self, ledger: Ledger, worker: WorkerLedger, redis_client: redis.Redis, finished: bool
    ) -> None:
        await ledger.submit(make_submission())
        if finished:
            worker.claim(make_lease())
            worker.finish(make_lease(), make_scores(), INTERACTIVE)
        record = await read(ledger)
        assert await ledger.delete(record)
        assert redis_client.keys() == [QUEUE.encode()]
        assert not await ledger.delete(record)


class TestLifetimes:
    async def test_every_key_of_an_unfinished_job_has_a_ceiling(
        self, ledger: Ledger, worker: WorkerLedger, redis_client: redis.Redis
    ) -> None:
        await ledger.submit(make_submission(shards=2))
        worker.claim(make_lease())
        for key in (keys.job(JOB), keys.request(JOB), keys.documents(JOB), keys.shards(JOB)):
            assert LIFETIMES.result < remaining_seconds(redis_client, key) <= LIFETIMES.unfinished
        worker.finish(make_lease(), make_scores(), INTERACTIVE)
        assert remaining_seconds(redis_client, keys.results(JOB)) > LIFETIMES.result

    @pytest.mark.parametrize("end", ["finish", "fail", "cancel", "expire"])
    async def test_every_key_of_an_ended_job_goes_when_its_result_does(
        self, ledger: Ledger, worker: WorkerLedger, redis_client: Any, end: str
    ) -> None:
        await ledger.submit(make_submission(shards=2, deadline_seconds=0.05 if end == "expire" else 60))
        if end == "expire":
            await asyncio.sleep(0.06)
        else:
            worker.claim(make_lease())
            worker.finish(make_lease(), make_scores(), INTERACTIVE)
        worker.claim(make_lease(1))
        if end == "finish":
            worker.finish(make_lease(1), make_scores(), INTERACTIVE)
        elif end == "fail":
            worker.fail(make_lease(1), FAILURE)
        elif end == "cancel":
            await ledger.cancel(await read(ledger))
        assert (await read(ledger)).state.final

        left = redis_client.keys("rerankq:job:*")
        assert len(left) == (4 if end == "expire" else 5)
        for key in left:
            assert 0 < remaining_seconds(redis_client, key) <= LIFETIMES.result


class TestAnnouncements:
    async def test_only_the_last_finish_is_announced(
        self, ledger: Ledger, worker: WorkerLedger, announced: Callable[[], list[str]]
    ) -> None:
        await ledger.submit(make_submission(shards=2))
        worker.claim(make_lease())
        worker.finish(make_lease(), make_scores(), INTERACTIVE)
        worker.claim(make_lease(1))
        assert announced() == []
        worker.finish(make_lease(1), make_scores(), INTERACTIVE)
        assert announced() == [JOB]

    async def test_an_end_is_announced_once_whatever_comes_after(
        self, ledger: Ledger, worker: WorkerLedger, announced: Callable[[], list[str]]
    ) -> None:
        await ledger.submit(make_submission())
        worker.claim(make_lease())
        worker.fail(make_lease(), FAILURE)
        assert announced() == [JOB]
        worker.fail(make_lease(), FAILURE)
        worker.finish(make_lease(), make_scores(), INTERACTIVE)
        worker.claim(make_lease())
        record = await read(ledger)
        await ledger.cancel(record)
        await ledger.delete(record)
        assert announced() == []

    @pytest.mark.parametrize("end", [Ledger.cancel, Ledger.delete])
    async def test_canceling_and_deleting_wake_those_who_wait(
        self,
        ledger: Ledger,
        announced: Callable[[], list[str]],
        end: Callable[[Ledger, JobRecord], Awaitable[object]],
    ) -> None:
        await ledger.submit(make_submission())
        await end(ledger, await read(ledger))
        assert announced() == [JOB]


class TestWithoutAStore:
    async def test_no_redis_is_store_unavailable_for_the_api(self) -> None:
        client = connect_async(dead_redis_url())
        ledger = Ledger(client)
        calls = [
            ledger.submit(make_submission()),
            ledger.read(JOB),
            ledger.read_request(JOB),
            ledger.read_finished(JOB),
            ledger.states([JOB]),
        ]
        for call in calls:
            with pytest.raises(StoreUnavailable, match="cannot be reached") as caught:
                await call
            assert caught.value.retry_after == RETRY_AFTER_SECONDS
        await client.aclose()

    def test_no_redis_is_store_unavailable_for_the_worker(self) -> None:
        with connect(dead_redis_url()) as client:
            worker = WorkerLedger(client, MODEL)
            with pytest.raises(StoreUnavailable, match="cannot be reached"):
                worker.claim(make_lease())
            with pytest.raises(StoreUnavailable, match="cannot be reached"):
                worker.finish(make_lease(), make_scores(), INTERACTIVE)
            with pytest.raises(StoreUnavailable, match="cannot be reached"):
                worker.fail(make_lease(), FAILURE)

    async def test_a_full_store_takes_no_job_and_no_part_of_one(
        self, ledger: Ledger, redis_client: redis.Redis
    ) -> None:
        with out_of_memory(redis_client), pytest.raises(StoreUnavailable, match="out of memory"):
            await ledger.submit(make_submission())
        assert redis_client.keys() == []

    async def test_a_full_store_brings_an_accepted_job_to_its_end(
        self, ledger: Ledger, worker: WorkerLedger, redis_client: redis.Redis
    ) -> None:
        await ledger.submit(make_submission(shards=2))
        worker.claim(make_lease())
        with out_of_memory(redis_client):
            assert worker.claim(make_lease(1)).verdict is ClaimVerdict.RUN
            for shard in (0, 1):
                assert worker.finish(make_lease(shard), make_scores(), INTERACTIVE) is FinishVerdict.ACCEPTED
        assert (await read(ledger)).state is JobState.SUCCEEDED

    async def test_scripts_come_back_after_redis_forgot_them(self, ledger: Ledger, redis_client: redis.Redis) -> None:
        await ledger.submit(make_submission("job-1"))
        redis_client.script_flush()
        await ledger.submit(make_submission("job-2"))
        assert await ledger.read("job-2") is not None
