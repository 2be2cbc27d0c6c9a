"""Lists of an owner's jobs."""

import json
from typing import Any

import pytest

import shared.ledger.job_index
from shared.keys import job_keys
from shared.ledger.job_index import JobIndex
from shared.ledger.job_ledger import JobLedger
from shared.ledger.job_record import DeadLetter, JobFailure, JobFilter, JobStatus, Position
from tests.shared.support import MODEL, OWNER, StoreView, make_submission, read_record

ALL = JobFilter()


@pytest.fixture
def index(async_client: Any) -> JobIndex:
    return JobIndex(async_client)


async def submit(ledger: JobLedger, store: StoreView, *job_ids: str, **fields: Any) -> None:
    for job_id in job_ids:
        await ledger.submit(make_submission(job_id, **fields))
        store.wait_for_next_millisecond()


async def ids(index: JobIndex, wanted: JobFilter = ALL, owner: str = OWNER) -> list[str]:
    found, position = await index.page(owner, wanted, 100)
    assert position is None
    return [record.id for record in found]


async def ids_of_pages(index: JobIndex, owner: str | None, *, limit: int) -> list[str]:
    """The ids on all pages, in order."""
    seen: list[str] = []
    position: Position | None = None
    for _ in range(9):
        found, position = await index.page(owner, ALL, limit, position)
        seen += [record.id for record in found]
        if position is None:
            return seen
    raise AssertionError("there are too many pages")


async def test_jobs_are_listed_newest_first_and_only_to_their_owner(
    ledger: JobLedger, index: JobIndex, store: StoreView
) -> None:
    await submit(ledger, store, "job-b", "job-a")
    await submit(ledger, store, "job-c", owner="other")
    assert await ids(index) == ["job-a", "job-b"]
    assert await ids(index, owner="other") == ["job-c"]
    assert await ids(index, owner="owner-without-jobs") == []


async def test_pages_together_have_every_job_once(ledger: JobLedger, index: JobIndex, redis_client: Any) -> None:
    for number in range(11):
        await ledger.submit(make_submission(f"job-{number:02}"))
    # Several were accepted in the same millisecond.
    redis_client.zadd(job_keys.owned(OWNER), {f"job-{number:02}": 1000 + number // 4 for number in range(11)})
    for number in range(11):
        redis_client.hset(job_keys.job(f"job-{number:02}"), "created_ms", 1000 + number // 4)
    assert await ids_of_pages(index, OWNER, limit=3) == [f"job-{number:02}" for number in reversed(range(11))]


async def test_a_full_last_page_is_the_last(ledger: JobLedger, index: JobIndex, store: StoreView) -> None:
    await submit(ledger, store, "job-1", "job-2")
    found, position = await index.page(OWNER, ALL, 2)
    assert (len(found), position) == (2, None)


async def test_filters(ledger: JobLedger, index: JobIndex, store: StoreView) -> None:
    await submit(ledger, store, "job-1", "job-2", "job-3")
    await ledger.cancel(await read_record(ledger, "job-2"))
    times = {job_id: (await read_record(ledger, job_id)).created_ms for job_id in ("job-1", "job-2", "job-3")}
    assert await ids(index, JobFilter(statuses=[JobStatus.CANCELED])) == ["job-2"]
    assert await ids(index, JobFilter(statuses=[JobStatus.CANCELED, JobStatus.QUEUED])) == ["job-3", "job-2", "job-1"]
    assert await ids(index, JobFilter(model=MODEL, created_from=times["job-2"])) == ["job-3", "job-2"]
    assert await ids(index, JobFilter(created_to=times["job-2"])) == ["job-2", "job-1"]
    assert await ids(index, JobFilter(model="another")) == []


async def test_a_filter_that_fits_few_jobs_reads_a_bounded_number_of_them(
    ledger: JobLedger, index: JobIndex, store: StoreView, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared.ledger.job_index, "_PAGE", 2)
    monkeypatch.setattr(shared.ledger.job_index, "_MAX_READ", 4)
    await submit(ledger, store, *(f"job-{number}" for number in range(7)))
    await ledger.cancel(await read_record(ledger, "job-0"))
    wanted = JobFilter(statuses=[JobStatus.CANCELED])
    found, position = await index.page(OWNER, wanted, 10)
    assert (found, position is not None) == ([], True)
    found, position = await index.page(OWNER, wanted, 10, position)
    assert ([record.id for record in found], position) == (["job-0"], None)


async def test_jobs_that_are_gone_leave_the_list(
    ledger: JobLedger, index: JobIndex, store: StoreView, redis_client: Any
) -> None:
    await submit(ledger, store, "job-1", "job-2", "job-3")
    await ledger.delete(await read_record(ledger, "job-1"))
    redis_client.set(job_keys.job("job-2"), "damaged")
    assert await ids(index) == ["job-3"]
    assert redis_client.zrange(job_keys.owned(OWNER), 0, -1) == [b"job-2", b"job-3"]


async def test_the_list_does_not_grow_with_jobs_that_are_gone(ledger: JobLedger, redis_client: Any) -> None:
    for number in range(300):
        await ledger.submit(make_submission(f"job-{number}"))
        redis_client.delete(job_keys.job(f"job-{number - 10}"))
    assert redis_client.zcard(job_keys.owned(OWNER)) < 100


async def test_jobs_of_all_owners_are_merged_by_time(
    ledger: JobLedger, index: JobIndex, store: StoreView, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared.ledger.job_index, "_PAGE", 2)
    expected: list[str] = []
    for number in range(12):
        # One owner has most of the oldest jobs, another one most of the newest.
        owner = "a" if number < 5 else ("b" if number % 3 else "c")
        await submit(ledger, store, f"job-{number:02}", owner=owner)
        expected.insert(0, f"job-{number:02}")
    assert await ids_of_pages(index, None, limit=5) == expected


async def test_dead_letters_are_the_newest_first_and_unreadable_ones_are_left_out(
    index: JobIndex, redis_client: Any
) -> None:
    letter = {"job": "job-1", "shard": 2, "model": MODEL, "crashes": 4, "retries": 0, "at_ms": 1000}
    letter |= {"failure": {"code": "scoring_failed", "message": "it died"}}
    redis_client.rpush(job_keys.DEAD_LETTERS, json.dumps(letter), "not JSON", "{}", "[]")
    expected = DeadLetter("job-1", 2, MODEL, JobFailure("scoring_failed", "it died"), 4, 0, 1000)
    assert await index.dead_letters(10) == [expected]
    assert await index.dead_letters(1) == [expected]


def test_a_position_is_parsed_from_its_text() -> None:
    position = Position(1_700_000_000_000, "job-1-2")
    assert Position.parse(str(position)) == position
    with pytest.raises(ValueError, match="invalid literal"):
        Position.parse("job-1")
