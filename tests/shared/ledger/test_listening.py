"""Which processes are notified when a job ends: each has a ledger of its own, and with it a channel."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis.asyncio

from shared.keys import job_keys
from shared.ledger.job_ledger import JobLedger
from shared.ledger.job_record import JobRecord
from tests.shared.support import make_submission

JOB = "job-1"


@pytest.fixture
def other(async_client: redis.asyncio.Redis) -> JobLedger:
    """The ledger of another process."""
    return JobLedger(async_client)


@pytest.fixture
def notified(redis_client: Any) -> Iterator[Callable[[], list[str]]]:
    """Returns the names of the processes that were notified of an end since the last call, in order."""
    with redis_client.pubsub() as channels:
        channels.psubscribe(job_keys.job_ended_channel("*"))

        def read() -> list[str]:
            redis_client.publish(job_keys.job_ended_channel("end-of-test"), "")
            names: list[str] = []
            while (message := channels.get_message(timeout=5)) is not None:
                if message["type"] == "pmessage":
                    if (name := message["channel"].decode().rpartition(":")[2]) == "end-of-test":
                        return names
                    names.append(name)
            raise AssertionError("the channels have no message")

        yield read


async def submitted(ledger: JobLedger, job_id: str = JOB) -> JobRecord:
    await ledger.submit(make_submission(job_id))
    record = await ledger.read(job_id)
    assert record is not None
    return record


async def test_only_the_process_that_submitted_a_job_is_notified(
    ledger: JobLedger, other: JobLedger, notified: Callable[[], list[str]]
) -> None:
    await other.cancel(await submitted(ledger))
    assert notified() == [ledger.listener]


async def test_processes_that_listen_are_notified_as_well(
    ledger: JobLedger, other: JobLedger, notified: Callable[[], list[str]]
) -> None:
    record = await submitted(ledger)
    for _ in range(2):
        await other.listen(record)
    await ledger.cancel(record)
    assert sorted(notified()) == sorted([ledger.listener, other.listener])


async def test_a_process_that_submits_the_same_job_again_is_notified_as_well(
    ledger: JobLedger, other: JobLedger, notified: Callable[[], list[str]]
) -> None:
    """A batch runner does this when it continues the batch of one that died."""
    await submitted(ledger)
    await other.cancel(await submitted(other))
    assert sorted(notified()) == sorted([ledger.listener, other.listener])


async def test_only_the_newest_processes_are_kept(
    ledger: JobLedger, async_client: redis.asyncio.Redis, notified: Callable[[], list[str]]
) -> None:
    """Processes that have ended listen to nothing."""
    record = await submitted(ledger)
    newest = [JobLedger(async_client) for _ in range(20)]
    for process in newest:
        await process.listen(record)
    await ledger.cancel(record)
    assert notified() == [process.listener for process in reversed(newest[-16:])]


async def test_listening_to_an_ended_or_deleted_job_stores_nothing(
    ledger: JobLedger, other: JobLedger, redis_client: Any
) -> None:
    record = await submitted(ledger)
    await ledger.cancel(record)
    before = redis_client.hgetall(job_keys.job(JOB))
    await other.listen(record)
    assert redis_client.hgetall(job_keys.job(JOB)) == before
    await ledger.delete(record)
    await other.listen(record)
    assert not redis_client.exists(job_keys.job(JOB))
