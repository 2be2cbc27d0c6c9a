"""Every status of a job has the recorded answer, and limits of time end jobs without anybody asking."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis

from shared.ledger.job_record import JobFailure
from shared.ledger.worker_ledger import WorkerLedger
from tests.api.routes.runpod.conftest import DOCS, ENDPOINT, Api, error_of
from tests.api.support import Worker
from tests.shared.support import MODEL, make_lease
from tests.wire.runpod_calls import mask_answer, recorded

SECONDS = 5.0
"""The reconciler looks for passed deadlines twice a second."""


async def check(api: Api, job_id: str, name: str) -> None:
    response = await api.mine.get(f"{ENDPOINT}/status/{job_id}")
    (expected,) = recorded(f"state-{name}")
    assert (response.status_code, mask_answer(response.json())) == (expected["status"], expected["answer"])


async def wait_for(api: Api, job_id: str, is_reached: Callable[[int, dict[str, Any]], bool]) -> None:
    ends_at = time.monotonic() + SECONDS
    while time.monotonic() < ends_at:
        response = await api.mine.get(f"{ENDPOINT}/status/{job_id}")
        if is_reached(response.status_code, response.json()):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"the job stays {response.status_code} {response.text}")


async def test_waiting_and_running_jobs(api: Api, redis_client: redis.Redis) -> None:
    job_id = await api.run()
    await check(api, job_id, "in-queue")
    WorkerLedger(redis_client, MODEL).claim(make_lease(job_id=job_id))
    await check(api, job_id, "in-progress")


async def test_completed_job(api: Api) -> None:
    job_id = await api.run()
    await api.worker.process_one()
    await check(api, job_id, "completed")


async def test_failed_job(api: Api, redis_url: str) -> None:
    job_id = await api.run()
    await Worker(redis_url, JobFailure("scoring_failed", "the engine failed")).process_one()
    await check(api, job_id, "failed")


async def test_cancelled_job(api: Api) -> None:
    job_id = await api.run()
    await api.post(f"cancel/{job_id}")
    await check(api, job_id, "cancelled")


async def test_running_job_times_out_at_its_execution_timeout(api: Api, redis_client: redis.Redis) -> None:
    job_id = await api.run(policy={"executionTimeout": 300})
    await asyncio.sleep(0.6)
    await check(api, job_id, "in-queue")
    WorkerLedger(redis_client, MODEL).claim(make_lease(job_id=job_id))
    await wait_for(api, job_id, lambda _, body: body["status"] == "TIMED_OUT")
    await check(api, job_id, "timed-out")


@pytest.mark.parametrize("given", [DOCS, [DOCS, DOCS]])
async def test_waiting_job_is_404_at_the_end_of_its_ttl(api: Api, given: Any) -> None:
    job_id = await api.run(given, policy={"ttl": 1000})
    assert (await api.read(job_id))["status"] == "IN_QUEUE"
    await wait_for(api, job_id, lambda status, _: status == 404)
    assert error_of(await api.mine.get(f"{ENDPOINT}/stream/{job_id}")) == (404, "id")


async def test_completed_job_is_404_at_the_end_of_its_ttl(api: Api) -> None:
    job_id = await api.run(policy={"ttl": 1000})
    await api.worker.process_one()
    assert (await api.read(job_id))["status"] == "COMPLETED"
    await wait_for(api, job_id, lambda status, _: status == 404)
