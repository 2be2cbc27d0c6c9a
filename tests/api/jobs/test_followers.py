"""Following a job through an outage of the store."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from api.jobs.completions import CompletionListener
from api.jobs.followers import JobFollower
from shared.errors import StoreUnavailable
from shared.ledger.job_ledger import JobLedger
from shared.ledger.job_record import JobStatus
from tests.api.jobs.test_service import LIMITS, ServiceMaker, make_service, pools
from tests.shared.support import JOB, OWNER, make_submission

__all__ = ["make_service", "pools"]


async def test_last_record_is_repeated_while_the_store_is_unreachable(
    ledger: JobLedger,
    completions: CompletionListener,
    make_service: ServiceMaker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("api.jobs.followers.FOLLOW_SECONDS", 0.02)
    service = make_service(LIMITS)
    await ledger.submit(make_submission())
    record = await service.job(JOB, OWNER)
    read, is_down = ledger.read, True

    async def read_or_fail(job_id: str) -> Any:
        if is_down:
            raise StoreUnavailable("down")
        return await read(job_id)

    monkeypatch.setattr(ledger, "read", read_or_fail)
    async with aclosing(JobFollower(service, ledger, completions, service._admission).follow(record)) as records:
        assert [await anext(records) for _ in range(3)] == [record] * 3
        is_down = False
        await ledger.cancel(record)
        async with asyncio.timeout(5):
            statuses = [latest.status async for latest in records]
    assert statuses[-1] is JobStatus.CANCELED
