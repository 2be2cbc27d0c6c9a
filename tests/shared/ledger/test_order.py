"""The order in which queued shards are claimed: classes, owners, priorities and age. Messages do not affect it."""

import random
from collections import Counter
from itertools import count
from typing import Any

import pytest

from shared.contracts import WorkClass
from shared.keys import job_keys, pool_keys
from shared.ledger.job_ledger import JobLedger
from shared.ledger.job_record import JobFailure, JobStatus
from shared.ledger.verdicts import ClaimedShard, ClaimRequest, ClaimVerdict, FreeSlots
from shared.ledger.worker_ledger import WorkerLedger
from shared.sharding import ShardSize
from tests.shared.support import JOB, MODEL, OWNER, StoreView, make_request, make_scores, make_submission, read_record

INTERACTIVE, BATCH = WorkClass.INTERACTIVE, WorkClass.BATCH
_tokens = count()


def claim_next(worker: WorkerLedger, shards: int = 1, batch: int | None = None, **fields: Any) -> list[ClaimedShard]:
    """Claim up to `shards` shards for a worker that holds others."""
    slots = FreeSlots(shards, shards if batch is None else batch)
    request = ClaimRequest("worker-1", f"token-{next(_tokens)}", slots, **fields)
    return worker.finish_and_claim([], request)[1]


def names(claimed: list[ClaimedShard]) -> list[str]:
    return [f"{shard.lease.job_id}/{shard.lease.shard}" for shard in claimed]


class TestOneOwner:
    async def test_jobs_are_claimed_by_age_and_their_shards_in_order(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission("job-b", shards=3))
        store.wait_for_next_millisecond()
        await ledger.submit(make_submission("job-a", shards=1))
        assert names(claim_next(worker, 9)) == ["job-b/0", "job-b/1", "job-b/2", "job-a/0"]

    async def test_a_lower_priority_number_comes_first(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        for priority in (5, 999, 0):
            request = make_request("one", priority=priority)
            await ledger.submit(make_submission(f"job-{priority}", request=request))
            store.wait_for_next_millisecond()
        assert names(claim_next(worker, 9)) == ["job-0/0", "job-5/0", "job-999/0"]

    async def test_only_enqueued_shards_are_claimed_and_each_finish_enqueues_another(
        self, ledger: JobLedger, worker: WorkerLedger
    ) -> None:
        await ledger.submit(make_submission(shards=3, enqueued=1))
        (first,) = claim_next(worker, 9)
        assert claim_next(worker, 9) == []
        worker.finish(first.lease, make_scores(0.5), INTERACTIVE)
        assert names(claim_next(worker, 9)) == [f"{JOB}/1"]

    async def test_a_claim_has_the_documents_and_the_size_of_its_shard(
        self, ledger: JobLedger, worker: WorkerLedger
    ) -> None:
        await ledger.submit(make_submission(shards=2, request=make_request("a", "b")))
        _, second = claim_next(worker, 2)
        assert second.claim.request is not None
        assert [document.text for document in second.claim.request.documents] == ["b"]
        assert (second.work_class, second.claim.tokens, second.claim.guaranteed) == (INTERACTIVE, 11, False)

    async def test_a_released_shard_keeps_its_place(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission("job-a"))
        store.wait_for_next_millisecond()
        await ledger.submit(make_submission("job-b"))
        (first,) = claim_next(worker)
        worker.release(first.lease, INTERACTIVE)
        assert names(claim_next(worker, 2)) == ["job-a/0", "job-b/0"]

    async def test_a_shard_that_waits_for_a_retry_is_claimed_only_when_it_is_due(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission())
        (first,) = claim_next(worker)
        worker.retry_later(first.lease, 2.0, JobFailure("scoring_failed", "busy"))
        assert claim_next(worker) == []
        store.make_due()
        await ledger.reconcile(MODEL)
        assert names(claim_next(worker)) == [f"{JOB}/0"]


class TestSkippedShards:
    async def test_a_job_past_its_deadline_expires_instead_of_being_claimed(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission("job-late"))
        await ledger.submit(make_submission("job-live"))
        store.pass_deadline("job-late")
        assert names(claim_next(worker)) == ["job-live/0"]
        assert (await read_record(ledger, "job-late")).status is JobStatus.EXPIRED

    async def test_a_canceled_job_leaves_the_order(
        self, ledger: JobLedger, worker: WorkerLedger, redis_client: Any
    ) -> None:
        await ledger.submit(make_submission("job-a", shards=2))
        await ledger.submit(make_submission("job-b"))
        await ledger.cancel(await read_record(ledger, "job-a"))
        assert redis_client.zrange(pool_keys.order(MODEL, INTERACTIVE, OWNER), 0, -1) == [b"job-b/0"]
        assert names(claim_next(worker, 9)) == ["job-b/0"]

    async def test_a_shard_that_must_run_alone_is_claimed_only_by_an_idle_worker(
        self, ledger: JobLedger, worker: WorkerLedger, redis_client: Any
    ) -> None:
        await ledger.submit(make_submission(shards=3))
        redis_client.hset(job_keys.shards(JOB), "1:run_alone", 1)
        first, suspect = claim_next(worker, 9, is_idle=True)
        assert (first.claim.verdict, suspect.claim.verdict) == (ClaimVerdict.RUN, ClaimVerdict.ALONE)
        assert suspect.lease.shard == 1
        (alone,) = claim_next(worker, 9, is_idle=True)
        assert (alone.lease.shard, alone.claim.verdict, alone.claim.alone) == (1, ClaimVerdict.RUN, True)

    async def test_an_order_key_of_the_wrong_type_is_restored_by_the_reconciler(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView, redis_client: Any
    ) -> None:
        await ledger.submit(make_submission())
        redis_client.set(pool_keys.order(MODEL, INTERACTIVE, OWNER), "foreign")
        assert claim_next(worker) == []
        store.make_due()
        await ledger.reconcile(MODEL)
        assert names(claim_next(worker)) == [f"{JOB}/0"]


class TestOwners:
    async def test_an_owner_with_many_jobs_does_not_delay_another_one(
        self, ledger: JobLedger, worker: WorkerLedger
    ) -> None:
        for number in range(50):
            await ledger.submit(make_submission(f"job-a-{number:02}", owner="a"))
        claim_next(worker, 5)
        await ledger.submit(make_submission("job-b", owner="b"))
        assert "job-b/0" in names(claim_next(worker, 2))

    async def test_an_idle_owner_saves_nothing_up(self, ledger: JobLedger, worker: WorkerLedger) -> None:
        await ledger.submit(make_submission("job-b-first", owner="b"))
        for number in range(40):
            await ledger.submit(make_submission(f"job-a-{number:02}", owner="a"))
        claim_next(worker, 20)
        for number in range(20):
            await ledger.submit(make_submission(f"job-b-{number:02}", owner="b"))
        # Not ten in a row for the turns that b has missed.
        turns = [shard.lease.job_id[4] for shard in claim_next(worker, 10)]
        assert Counter(turns) == {"a": 5, "b": 5}

    @pytest.mark.parametrize("weights", [{"a": 1.0, "b": 1.0, "c": 1.0}, {"a": 1.0, "b": 2.0, "c": 5.0}])
    async def test_backlogged_owners_share_by_weight_whatever_the_sizes_and_arrivals(
        self, ledger: JobLedger, worker: WorkerLedger, weights: dict[str, float]
    ) -> None:
        """The bound of start-time fair queueing: two owners' normalized shares differ by at most two shards."""
        chance, served, pending, largest = random.Random(7), Counter[str](), Counter[str](), 200
        sizes: dict[str, int] = {}
        for number in range(400):
            for owner, weight in weights.items():
                while pending[owner] < 3 or chance.random() < 0.3:
                    job_id = f"job-{owner}-{len(sizes)}"
                    sizes[job_id] = chance.randint(1, largest)
                    pending[owner] += 1
                    submission = make_submission(
                        job_id, owner=owner, weight=weight, sizes=[ShardSize(2, sizes[job_id])]
                    )
                    await ledger.submit(submission)
            for shard in claim_next(worker, chance.randint(1, 4)):
                owner = shard.lease.job_id.split("-")[1]
                served[owner] += sizes[shard.lease.job_id]
                pending[owner] -= 1
                worker.finish(shard.lease, make_scores(), INTERACTIVE)
            normalized = [served[owner] / weight for owner, weight in weights.items()]
            assert max(normalized) - min(normalized) <= 2 * largest, number


class TestClasses:
    async def test_interactive_work_comes_first_and_batch_work_only_into_its_slots(
        self, ledger: JobLedger, worker: WorkerLedger
    ) -> None:
        await ledger.submit(make_submission("job-b", shards=4, work_class=BATCH))
        await ledger.submit(make_submission("job-i", shards=2))
        assert names(claim_next(worker, 9, batch=1)) == ["job-i/0", "job-i/1", "job-b/0"]
        assert names(claim_next(worker, 9, batch=0)) == []

    @pytest.mark.parametrize("share", [0.1, 0.25])
    async def test_batch_work_gets_its_share_of_tokens_during_an_interactive_flood(
        self, ledger: JobLedger, redis_client: Any, share: float
    ) -> None:
        worker = WorkerLedger(redis_client, MODEL, batch_share=share)
        chance, tokens = random.Random(3), Counter[WorkClass]()
        sizes: dict[str, int] = {}

        async def submit(work_class: WorkClass) -> None:
            job_id = f"job-{len(sizes)}"
            sizes[job_id] = chance.randint(10, 1000)
            size = ShardSize(2, sizes[job_id])
            await ledger.submit(make_submission(job_id, work_class=work_class, sizes=[size]))

        for _ in range(5):
            await submit(INTERACTIVE)
            await submit(BATCH)
        for _ in range(400):
            for shard in claim_next(worker):
                tokens[shard.work_class] += sizes[shard.lease.job_id]
                assert shard.claim.guaranteed == (shard.work_class is BATCH)
                worker.finish(shard.lease, make_scores(), shard.work_class)
                await submit(shard.work_class)
        assert tokens[BATCH] / tokens.total() == pytest.approx(share, abs=0.01)

    async def test_batch_work_is_not_owed_for_a_time_without_batch_work(
        self, ledger: JobLedger, worker: WorkerLedger
    ) -> None:
        await ledger.submit(make_submission("job-i", shards=30))
        claim_next(worker, 20)
        await ledger.submit(make_submission("job-b", shards=2, work_class=BATCH))
        assert {shard.work_class for shard in claim_next(worker, 2)} == {INTERACTIVE}


class TestRepeatedRequest:
    async def test_it_claims_the_same_shards_again(
        self, ledger: JobLedger, worker: WorkerLedger, store: StoreView
    ) -> None:
        await ledger.submit(make_submission(shards=5))
        request = ClaimRequest("worker-1", "token", FreeSlots(2, 2))
        _, first = worker.finish_and_claim([], request)
        messages = store.messages()
        _, again = worker.finish_and_claim([], request)
        assert [shard.lease for shard in first] == [shard.lease for shard in again]
        assert all(shard.claim.verdict is ClaimVerdict.RUN for shard in again)
        assert store.messages() == messages
        assert names(claim_next(worker, 9)) == [f"{JOB}/2", f"{JOB}/3", f"{JOB}/4"]


class TestBacklog:
    """The tokens of each owner's unfinished shards, which admission reads."""

    def backlog(self, client: Any, work_class: WorkClass = INTERACTIVE) -> dict[str, int]:
        fields = client.hgetall(pool_keys.backlog(MODEL, work_class))
        return {owner.decode(): int(tokens) for owner, tokens in fields.items()}

    async def test_it_follows_submissions_finishes_and_ends(
        self, ledger: JobLedger, worker: WorkerLedger, redis_client: Any
    ) -> None:
        await ledger.submit(make_submission("job-a", owner="a", shards=2))
        await ledger.submit(make_submission("job-b", owner="b"))
        await ledger.submit(make_submission("job-c", owner="a", work_class=BATCH))
        assert self.backlog(redis_client) == {"a": 21, "b": 20}
        assert self.backlog(redis_client, BATCH) == {"a": 20}
        first = claim_next(worker)[0]
        assert first.lease.job_id == "job-a"
        worker.finish(first.lease, make_scores(0.5), INTERACTIVE)
        assert self.backlog(redis_client) == {"a": 11, "b": 20}
        await ledger.cancel(await read_record(ledger, "job-b"))
        assert self.backlog(redis_client) == {"a": 11}
        await ledger.cancel(await read_record(ledger, "job-a"))
        await ledger.cancel(await read_record(ledger, "job-c"))
        assert self.backlog(redis_client) == {}
        assert self.backlog(redis_client, BATCH) == {}
        assert redis_client.exists(pool_keys.turns(MODEL, INTERACTIVE), pool_keys.turns(MODEL, BATCH)) == 0
