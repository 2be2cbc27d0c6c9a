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
NAME = job_keys.idempotency(OWNER, "mine")


async def test_the_same_request_under_the_same_key_is_the_same_job(
    ledger: JobLedger, store: StoreView, redis_client: Any
) -> None:
    assert await ledger.submit(FIRST) == Acceptance("job-1", existing=False)
    before = set(redis_client.keys())
    again = make_submission("job-2", idempotency="mine")
    assert await ledger.submit(again) == Acceptance("job-1", existing=True)
    assert set(redis_client.keys()) == before
    assert store.outstanding() == ["job-1/0"]
    assert len(store.messages()) == 1


async def test_a_caller_that_waited_may_come_back_for_its_job_as_batch_work(ledger: JobLedger) -> None:
    await ledger.submit(FIRST)
    again = replace(make_submission("job-2", idempotency="mine"), work_class=WorkClass.BATCH)
    assert await ledger.submit(again) == Acceptance("job-1", existing=True)


async def test_it_stands_for_the_job_whatever_has_become_of_it(ledger: JobLedger, worker: WorkerLedger) -> None:
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
async def test_another_request_under_the_same_key_is_a_conflict(
    ledger: JobLedger, store: StoreView, other: Any
) -> None:
    await ledger.submit(FIRST)
    with pytest.raises(IdempotencyConflict, match="was used for another request") as caught:
        await ledger.submit(replace(other, job_id="job-2"))
    assert caught.value.param == "Idempotency-Key"
    assert await ledger.read("job-2") is None
    assert store.outstanding() == ["job-1/0"]


async def test_documents_cannot_change_places_unnoticed(ledger: JobLedger) -> None:
    """What is compared has the documents' borders in it."""
    request = make_request("ab", "c")
    await ledger.submit(replace(FIRST, request=request, sizes=[ONE, ONE]))
    for texts in (("a", "bc"), ("c", "ab"), ("ab", "c", "")):
        sizes = [ONE, ShardSize(len(texts) - 1, 9)]
        with pytest.raises(IdempotencyConflict):
            await ledger.submit(replace(FIRST, job_id="job-2", request=make_request(*texts), sizes=sizes))


async def test_the_key_of_another_owner_is_another_key(ledger: JobLedger) -> None:
    await ledger.submit(FIRST)
    other = replace(make_submission("job-2", idempotency="mine"), owner="owner-2")
    assert await ledger.submit(other) == Acceptance("job-2", existing=False)


async def test_without_a_key_every_submission_is_a_job(ledger: JobLedger, redis_client: Any) -> None:
    for job_id in ("job-1", "job-2"):
        assert await ledger.submit(make_submission(job_id)) == Acceptance(job_id, existing=False)
    assert redis_client.keys("rerankq:idempotency:*") == []


async def test_a_submit_that_is_sent_again_after_a_lost_answer_is_the_first_one(ledger: JobLedger) -> None:
    assert await ledger.submit(FIRST) == await ledger.submit(FIRST) == Acceptance("job-1", existing=False)


async def test_the_key_goes_with_its_deleted_job(ledger: JobLedger, redis_client: Any) -> None:
    await ledger.submit(FIRST)
    await ledger.delete(await read_record(ledger))
    assert not redis_client.exists(NAME)
    again = make_submission("job-2", idempotency="mine")
    assert await ledger.submit(again) == Acceptance("job-2", existing=False)


async def test_the_key_lives_as_long_as_its_job(ledger: JobLedger, store: StoreView) -> None:
    await ledger.submit(FIRST)
    assert LIFETIMES.result < store.remaining_seconds(NAME) <= LIFETIMES.unfinished
    await ledger.cancel(await read_record(ledger))
    assert 0 < store.remaining_seconds(NAME) <= LIFETIMES.result


def test_what_a_caller_writes_into_its_key_is_in_no_name() -> None:
    secret = "a secret " * 100
    assert "secret" not in job_keys.idempotency(OWNER, secret)
    assert len(job_keys.idempotency(OWNER, secret)) == len(job_keys.idempotency(OWNER, "x"))
