"""Jobs whose scores are partly or fully known when they are submitted."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from shared.contracts import Document, RerankRequest, ScoreScale, WorkClass
from shared.errors import IdempotencyConflict, StoreUnavailable
from shared.keys import job_keys, pool_keys
from shared.ledger.job_ledger import JobLedger
from shared.ledger.job_record import JobStatus
from shared.ledger.submission import Acceptance
from shared.ledger.verdicts import ClaimVerdict
from shared.ledger.worker_ledger import WorkerLedger
from shared.partial_results import KnownScores, PairScore
from shared.sharding import ShardSize
from tests.shared.conftest import LIFETIMES
from tests.shared.support import (
    JOB,
    MODEL,
    OWNER,
    StoreView,
    make_lease,
    make_request,
    make_scores,
    make_submission,
    out_of_memory,
    read_record,
)

SCORE = PairScore(0.5, ScoreScale.SIMILARITY, truncated=True, window=(3, 9))
REQUEST = RerankRequest(
    query="q",
    documents=[Document(text=text, id=position) for position, text in enumerate(["a", "b", "a", "c", "d"])],
    top_n=2,
)
SOME_KNOWN = KnownScores({1: SCORE}, {2: 0})
ALL_KNOWN = KnownScores(dict.fromkeys(range(5), SCORE))


def partly_known(job_id: str = JOB, *, idempotency: str | None = None) -> Any:
    return make_submission(job_id, request=REQUEST, known_scores=SOME_KNOWN, shards=2, idempotency=idempotency)


def fully_known(job_id: str = JOB, *, idempotency: str | None = None) -> Any:
    return make_submission(job_id, request=REQUEST, known_scores=ALL_KNOWN, shards=0, idempotency=idempotency)


class TestPartlyKnown:
    async def test_shards_contain_only_documents_without_a_known_score(
        self, ledger: JobLedger, worker: WorkerLedger
    ) -> None:
        await ledger.submit(partly_known())
        requests = [worker.claim(make_lease(shard)).request for shard in (0, 1)]
        assert [[document.text for document in request.documents] for request in requests if request] == [
            ["a", "c"],
            ["d"],
        ]

    async def test_record_and_request_include_known_documents(self, ledger: JobLedger) -> None:
        await ledger.submit(partly_known())
        record = await read_record(ledger)
        assert (record.pairs, record.shards, record.shards_left, record.status) == (5, 2, 2, JobStatus.QUEUED)
        assert await ledger.read_request(JOB) == (REQUEST, SOME_KNOWN)

    async def test_job_succeeds_with_its_last_shard(self, ledger: JobLedger, worker: WorkerLedger) -> None:
        await ledger.submit(partly_known())
        for shard in (0, 1):
            worker.claim(make_lease(shard))
            worker.finish(make_lease(shard), make_scores(), WorkClass.INTERACTIVE)
        assert (await read_record(ledger)).status is JobStatus.SUCCEEDED
        assert await ledger.read_request(JOB) == (REQUEST, SOME_KNOWN)

    async def test_deleting_the_job_deletes_its_known_scores(self, ledger: JobLedger, redis_client: Any) -> None:
        await ledger.submit(partly_known())
        assert await ledger.delete(await read_record(ledger))
        assert redis_client.keys(f"{job_keys.job(JOB)}*") == []


class TestFullyKnown:
    async def test_job_succeeds_on_submission(self, ledger: JobLedger, store: StoreView) -> None:
        assert await ledger.submit(fully_known()) == Acceptance(JOB, existing=False)
        record = await read_record(ledger)
        assert (record.status, record.pairs, record.shards, record.shards_left) == (JobStatus.SUCCEEDED, 5, 0, 0)
        assert record.finished_ms >= record.created_ms > 0
        assert await ledger.read_finished(JOB) == (record, [])
        assert await ledger.read_request(JOB) == (REQUEST, ALL_KNOWN)

    async def test_job_has_no_outstanding_work(self, ledger: JobLedger, store: StoreView) -> None:
        await ledger.submit(fully_known())
        assert (store.outstanding(), store.deadlines(), store.messages()) == ([], [], [])

    async def test_end_of_the_job_is_published(
        self, ledger: JobLedger, published_ends: Callable[[], list[str]]
    ) -> None:
        await ledger.submit(fully_known())
        assert published_ends() == [JOB]

    async def test_keys_expire_after_the_result_lifetime(
        self, ledger: JobLedger, store: StoreView, redis_client: Any
    ) -> None:
        await ledger.submit(fully_known(idempotency="mine"))
        # The list of the owner's jobs and the pool's counts live longer.
        names = set(redis_client.keys()) - {job_keys.owned(OWNER).encode(), pool_keys.job_counts(MODEL).encode()}
        expected = {
            job_keys.job(JOB),
            job_keys.request(JOB),
            job_keys.documents(JOB),
            job_keys.idempotency(OWNER, "mine"),
        }
        assert {name.decode() for name in names} == expected
        assert all(0 < store.remaining_seconds(name) <= LIFETIMES.result for name in names)

    async def test_later_operations_do_not_change_the_job(self, ledger: JobLedger, worker: WorkerLedger) -> None:
        await ledger.submit(fully_known())
        record = await read_record(ledger)
        assert await ledger.submit(fully_known()) == Acceptance(JOB, existing=False)
        assert await ledger.cancel(record) is JobStatus.SUCCEEDED
        assert await ledger.retry_failed(record, 60) is None
        assert worker.claim(make_lease()).verdict is ClaimVerdict.ENDED
        assert await read_record(ledger) == record

    async def test_redis_that_is_out_of_memory_stores_nothing(self, ledger: JobLedger, redis_client: Any) -> None:
        with out_of_memory(redis_client), pytest.raises(StoreUnavailable, match="out of memory"):
            await ledger.submit(fully_known(idempotency="mine"))
        assert redis_client.keys() == []


class TestIdempotency:
    @pytest.mark.parametrize("first", [fully_known, partly_known])
    @pytest.mark.parametrize("again", [fully_known, partly_known])
    async def test_known_scores_are_not_part_of_the_comparison(self, ledger: JobLedger, first: Any, again: Any) -> None:
        await ledger.submit(first("job-1", idempotency="mine"))
        accepted = await ledger.read_request("job-1")
        assert await ledger.submit(again("job-2", idempotency="mine")) == Acceptance("job-1", existing=True)
        assert await ledger.read_request("job-1") == accepted

    async def test_number_of_shards_is_not_part_of_the_comparison(self, ledger: JobLedger) -> None:
        one_shard = make_submission("job-1", request=REQUEST, idempotency="mine")
        await ledger.submit(one_shard)
        two_shards = replace(one_shard, job_id="job-2", sizes=[ShardSize(2, 20), ShardSize(3, 30)])
        assert await ledger.submit(two_shards) == Acceptance("job-1", existing=True)

    async def test_another_fully_known_request_is_a_conflict(self, ledger: JobLedger) -> None:
        await ledger.submit(fully_known("job-1", idempotency="mine"))
        other = make_request("a", "b")
        known_scores = KnownScores(dict.fromkeys(range(2), SCORE))
        with pytest.raises(IdempotencyConflict):
            await ledger.submit(
                make_submission("job-2", request=other, known_scores=known_scores, shards=0, idempotency="mine")
            )
