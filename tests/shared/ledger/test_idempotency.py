from dataclasses import replace
from typing import Any

import pytest

from shared.contracts import WorkClass
from shared.errors import IdempotencyConflict
from shared.keys import job_keys
from shared.ledger.job_ledger import JobLedger
from shared.ledger.job_record import JobStatus
from shared.ledger.submission import Acceptance
from shared.ledger.worker_ledger import WorkerLedger
from shared.sharding import ShardSize
from tests.shared.conftest import LIFETIMES
from tests.shared.support import (
    OWNER,
    StoreView,
    make_lease,
    make_request,
    make_scores,
    make_submission,
    read_record,
)

INTERACTIVE = WorkClass.INTERACTIVE
ONE = ShardSize(1, 9)
FIRST = make_submission("job-1", idempotency="mine")
IDEMPOTENCY_KEY = job_keys.idempotency(OWNER, "mine")


async def test_same_request_with_the_same_key_returns_the_same_job(
    ledger: JobLedger, store: StoreView, redis_client: Any
) -> None:
    assert await ledger.submit(FIRST) == Acceptance("job-1", existing=False)
    before = set(redis_client.keys())
    again = make_submission("job-2", idempotency="mine")
    assert await ledger.submit(again) == Acceptance("job-1", existing=True)
    assert set(redis_client.keys()) == before
    assert store.outstanding() == ["job-1/0"]
    assert len(store.messages()) == 1


async def test_work_class_is_not_part_of_the_comparison(ledger: JobLedger) -> None:
    await ledger.submit(FIRST)
    again = replace(make_submission("job-2", idempotency="mine"), work_class=WorkClass.BATCH)
    assert await ledger.submit(again) == Acceptance("job-1", existing=True)


async def test_key_returns_a_finished_job(ledger: JobLedger, worker: WorkerLedger) -> None:
    await ledger.submit(FIRST)
    worker.claim(make_lease())
    worker.finish(make_lease(), make_scores(), INTERACTIVE)
    again = make_submission("job-2", idempotency="mine")
    assert await ledger.submit(again) == Acceptance("job-1", existing=True)
    assert (await read_record(ledger)).status is JobStatus.SUCCEEDED


@pytest.mark.parametrize(
    "other",
    [
        replace(FIRST, request=make_request("text 0", "another text")),
        replace(FIRST, request=make_request("text 0", "text 1", top_n=1)),
        replace(FIRST, request=make_request("text 0", "text 1", priority=1)),
        replace(FIRST, dialect="nebul"),
    ],
    ids=["another document", "another top_n", "another priority", "another dialect"],
)
async def test_another_request_with_the_same_key_is_a_conflict(ledger: JobLedger, store: StoreView, other: Any) -> None:
    await ledger.submit(FIRST)
    with pytest.raises(IdempotencyConflict, match="was used for another request") as caught:
        await ledger.submit(replace(other, job_id="job-2"))
    assert caught.value.param == "Idempotency-Key"
    assert await ledger.read("job-2") is None
    assert store.outstanding() == ["job-1/0"]


async def test_documents_in_another_order_or_with_other_boundaries_are_a_conflict(ledger: JobLedger) -> None:
    """The comparison includes the boundaries between documents."""
    request = make_request("ab", "c")
    await ledger.submit(replace(FIRST, request=request, sizes=[ONE, ONE]))
    for texts in (("a", "bc"), ("c", "ab"), ("ab", "c", "")):
        sizes = [ONE, ShardSize(len(texts) - 1, 9)]
        with pytest.raises(IdempotencyConflict):
            await ledger.submit(replace(FIRST, job_id="job-2", request=make_request(*texts), sizes=sizes))


async def test_two_owners_may_use_the_same_key(ledger: JobLedger) -> None:
    await ledger.submit(FIRST)
    other = replace(make_submission("job-2", idempotency="mine"), owner="owner-2")
    assert await ledger.submit(other) == Acceptance("job-2", existing=False)


async def test_without_a_key_every_submission_creates_a_job(ledger: JobLedger, redis_client: Any) -> None:
    for job_id in ("job-1", "job-2"):
        assert await ledger.submit(make_submission(job_id)) == Acceptance(job_id, existing=False)
    assert redis_client.keys("rerankq:idempotency:*") == []


async def test_repeated_submission_returns_the_first_acceptance(ledger: JobLedger) -> None:
    assert await ledger.submit(FIRST) == await ledger.submit(FIRST) == Acceptance("job-1", existing=False)


async def test_deleting_a_job_deletes_its_key(ledger: JobLedger, redis_client: Any) -> None:
    await ledger.submit(FIRST)
    await ledger.delete(await read_record(ledger))
    assert not redis_client.exists(IDEMPOTENCY_KEY)
    again = make_submission("job-2", idempotency="mine")
    assert await ledger.submit(again) == Acceptance("job-2", existing=False)


async def test_key_expires_with_its_job(ledger: JobLedger, store: StoreView) -> None:
    await ledger.submit(FIRST)
    assert LIFETIMES.result < store.remaining_seconds(IDEMPOTENCY_KEY) <= LIFETIMES.unfinished
    await ledger.cancel(await read_record(ledger))
    assert 0 < store.remaining_seconds(IDEMPOTENCY_KEY) <= LIFETIMES.result


def test_redis_key_does_not_contain_the_callers_key() -> None:
    secret = "a secret " * 100
    assert "secret" not in job_keys.idempotency(OWNER, secret)
    assert len(job_keys.idempotency(OWNER, secret)) == len(job_keys.idempotency(OWNER, "x"))
