"""Jobs through RunPod's paths: their statuses and times, and what its SDKs stumble over."""

import asyncio
import time
from typing import Any

import pytest

from shared.keys import job_keys
from shared.ledger.job_record import JobFailure
from tests.api.routes.runpod.conftest import DOCS, ENDPOINT, Api, error_of
from tests.api.support import Worker
from tests.shared.support import StoreView

FAILURE = JobFailure("scoring_failed", "the engine failed")


async def failed(api: Api, redis_url: str, given: Any = DOCS) -> str:
    """A job that has failed."""
    job_id = await api.run(given)
    await Worker(redis_url, FAILURE).process_one()
    return job_id


async def expired(api: Api, store: StoreView) -> str:
    """A job whose executionTimeout has passed."""
    job_id = await api.run(policy={"executionTimeout": 1})
    store.pass_deadline(job_id)
    await api.worker.process_one()
    return job_id


class TestStatus:
    async def test_job_goes_from_the_queue_to_completion(self, api: Api) -> None:
        job_id = await api.run()
        assert await api.read(job_id) == {"id": job_id, "status": "IN_QUEUE"}
        await api.worker.process_one()
        job = await api.read(job_id)
        assert list(job) == ["id", "status", "delayTime", "executionTime", "output"]
        assert job["status"] == "COMPLETED"
        assert all(type(job[name]) is int and 0 <= job[name] < 10_000 for name in ("delayTime", "executionTime"))

    async def test_failed_job_has_an_error(self, api: Api, redis_url: str) -> None:
        job = await api.read(await failed(api, redis_url))
        assert (job["status"], job["error"]) == ("FAILED", "the engine failed")
        assert "output" not in job

    async def test_expired_job_timed_out(self, api: Api, store: StoreView) -> None:
        job = await api.read(await expired(api, store))
        assert job["status"] == "TIMED_OUT"
        assert "executionTimeout" in job["error"]

    async def test_canceled_job_is_cancelled(self, api: Api) -> None:
        job_id = await api.run()
        assert await api.post(f"cancel/{job_id}") == {"id": job_id, "status": "CANCELLED"}
        job = await api.read(job_id)
        assert (job["status"], job["error"]) == ("CANCELLED", "the job was cancelled")

    async def test_ended_job_cannot_be_cancelled(self, api: Api) -> None:
        job_id = await api.run()
        await api.worker.process_one()
        assert (await api.post(f"cancel/{job_id}"))["status"] == "COMPLETED"

    async def test_ttl_shortens_how_long_it_can_be_read(self, api: Api, store: StoreView) -> None:
        job_id = await api.run()
        await api.worker.process_one()
        assert (await api.mine.get(f"{ENDPOINT}/status/{job_id}?ttl=20000")).json()["status"] == "COMPLETED"
        assert store.remaining_seconds(job_keys.job(job_id)) <= 20
        assert error_of(await api.mine.get(f"{ENDPOINT}/status/{job_id}?ttl=0")) == (400, "ttl")

    async def test_another_keys_job_does_not_exist(self, api: Api) -> None:
        job_id = await api.run()
        for operation in ("status", "status-sync", "stream"):
            assert error_of(await api.other.get(f"{ENDPOINT}/{operation}/{job_id}")) == (404, "id")
        for operation in ("cancel", "retry"):
            assert error_of(await api.other.post(f"{ENDPOINT}/{operation}/{job_id}")) == (404, "id")


class TestWaiting:
    async def test_runsync_returns_the_output(self, api: Api) -> None:
        response, _ = await asyncio.gather(
            api.mine.post(f"{ENDPOINT}/runsync", json={"input": DOCS}), api.worker.process_one()
        )
        job = response.json()
        assert (response.status_code, job["status"]) == (200, "COMPLETED")
        assert job["id"].startswith("sync-")
        assert len(job["output"]["results"]) == 2
        assert await api.read(job["id"]) == job
        assert await api.read(job["id"].replace("sync-", "job-")) == job | {"id": job["id"].replace("sync-", "job-")}

    async def test_failure_is_a_status_and_not_an_error(self, api: Api, redis_url: str) -> None:
        response, _ = await asyncio.gather(
            api.mine.post(f"{ENDPOINT}/runsync", json={"input": DOCS}), Worker(redis_url, FAILURE).process_one()
        )
        assert (response.status_code, response.json()["status"]) == (200, "FAILED")

    async def test_past_the_wait_it_returns_the_unfinished_job_and_no_408_that_the_sdk_would_repeat(
        self, api: Api
    ) -> None:
        started = time.monotonic()
        response = await api.mine.post(f"{ENDPOINT}/runsync?wait=1000", json={"input": DOCS})
        assert 0.9 < time.monotonic() - started < 1.9
        assert (response.status_code, response.json()["status"]) == (200, "IN_QUEUE")
        waiting = asyncio.create_task(api.read(response.json()["id"], "status-sync"))
        await api.worker.process_one()
        assert (await waiting)["status"] == "COMPLETED"

    async def test_the_services_own_limit_applies(self, api: Api) -> None:
        job_id = await api.run()
        started = time.monotonic()
        assert (await api.read(job_id, "status-sync"))["status"] == "IN_QUEUE"
        assert 1.5 < time.monotonic() - started < 4

    @pytest.mark.parametrize("wait", ["999", "300001", "soon", "-1", "1e4"])
    async def test_wait_is_1_to_300_seconds(self, api: Api, wait: str) -> None:
        response = await api.mine.post(f"{ENDPOINT}/runsync?wait={wait}", json={"input": DOCS})
        assert error_of(response) == (400, "wait")
        assert error_of(await api.mine.get(f"{ENDPOINT}/status-sync/job-x?wait={wait}")) == (400, "wait")

    async def test_nothing_else_is_held_because_the_sdks_give_up(self, api: Api) -> None:
        """They do so after 3 s (JavaScript, and some calls of Python's) or 10 s. No worker runs here."""
        started = time.monotonic()
        job_id = await api.run()
        for operation in (f"status/{job_id}", f"stream/{job_id}", "health"):
            assert (await api.mine.get(f"{ENDPOINT}/{operation}")).status_code == 200
        for operation in (f"cancel/{job_id}", "purge-queue"):
            assert (await api.mine.post(f"{ENDPOINT}/{operation}")).status_code == 200
        assert time.monotonic() - started < 1


class TestRetry:
    async def test_failed_job_runs_again_under_its_id(self, api: Api, redis_url: str) -> None:
        job_id = await failed(api, redis_url)
        assert await api.post(f"retry/{job_id}") == {"id": job_id, "status": "IN_QUEUE"}
        assert (await api.read(job_id))["status"] == "IN_QUEUE"
        await api.worker.process_one()
        assert (await api.read(job_id))["status"] == "COMPLETED"

    async def test_job_that_timed_out_runs_again(self, api: Api, store: StoreView) -> None:
        job_id = await expired(api, store)
        await api.post(f"retry/{job_id}")
        await api.worker.process_one()
        assert (await api.read(job_id))["status"] == "COMPLETED"

    async def test_other_jobs_cannot_be_retried(self, api: Api) -> None:
        job_id = await api.run()
        assert error_of(await api.mine.post(f"{ENDPOINT}/retry/{job_id}")) == (400, "id")
        await api.post(f"cancel/{job_id}")
        assert error_of(await api.mine.post(f"{ENDPOINT}/retry/{job_id}")) == (400, "id")


class TestStream:
    """RunPod's SDK for Python reads a stream until it is empty and its status FAILED, COMPLETED or TIMED_OUT."""

    async def test_output_is_streamed_once(self, api: Api) -> None:
        job_id = await api.run()
        assert await api.read(job_id, "stream") == {"status": "IN_QUEUE", "stream": []}
        await api.worker.process_one()
        first = await api.read(job_id, "stream")
        assert first == {"status": "COMPLETED", "stream": [{"output": (await api.read(job_id))["output"]}]}
        assert await api.read(job_id, "stream") == {"status": "COMPLETED", "stream": []}

    async def test_cancelled_job_ends_the_stream_with_a_status_that_the_sdk_knows(self, api: Api) -> None:
        job_id = await api.run()
        await api.post(f"cancel/{job_id}")
        assert await api.read(job_id, "stream") == {"status": "FAILED", "stream": []}

    async def test_failed_job_ends_the_stream(self, api: Api, redis_url: str) -> None:
        assert await api.read(await failed(api, redis_url), "stream") == {"status": "FAILED", "stream": []}


class TestQueue:
    async def test_purge_removes_what_waits(self, api: Api) -> None:
        jobs = [await api.run(DOCS | {"query": f"query {number}"}) for number in range(3)]
        await api.worker.process_one()
        assert await api.post("purge-queue") == {"removed": 2, "status": "completed"}
        statuses = sorted([(await api.read(job_id))["status"] for job_id in jobs])
        assert statuses == ["CANCELLED", "CANCELLED", "COMPLETED"]

    async def test_purge_leaves_the_jobs_of_other_keys_and_endpoints(self, api: Api) -> None:
        job_id = await api.run()
        assert (await api.other.post(f"{ENDPOINT}/purge-queue")).json()["removed"] == 0
        assert (await api.mine.post("/runpod/v2/another-model/purge-queue")).json()["removed"] == 0
        assert (await api.read(job_id))["status"] == "IN_QUEUE"

    async def test_health_counts_jobs_and_workers(self, api: Api, redis_url: str) -> None:
        await api.run()
        await api.worker.process_one()
        job_id = await failed(api, redis_url, DOCS | {"query": "another"})
        await api.post(f"retry/{job_id}")
        health = (await api.mine.get(f"{ENDPOINT}/health")).json()
        assert health == {
            "jobs": {"completed": 1, "failed": 1, "inProgress": 0, "inQueue": 1, "retried": 1},
            "workers": {"idle": 0, "initializing": 0, "ready": 0, "running": 0, "throttled": 0},
        }


class TestManyInputs:
    """A list of inputs is one job of many requests. tests/wire runs one to its end."""

    @pytest.mark.parametrize("given", [[DOCS, DOCS], {"inputs": [DOCS, DOCS]}])
    async def test_list_of_inputs_is_one_job(self, api: Api, given: Any) -> None:
        job_id = await api.run(given)
        assert job_id.startswith("bulk-")
        assert (await api.read(job_id))["status"] == "IN_QUEUE"
        assert await api.read(job_id, "stream") == {"status": "IN_QUEUE", "stream": []}
        assert error_of(await api.mine.post(f"{ENDPOINT}/retry/{job_id}")) == (400, "id")
        assert error_of(await api.other.get(f"{ENDPOINT}/status/{job_id}")) == (404, "id")
        assert (await api.post(f"cancel/{job_id}"))["status"] == "CANCELLED"
