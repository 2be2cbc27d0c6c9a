"""Bifrost's asynchronous door: the states that a job passes, lifetimes, keys and fallbacks.

tests/wire has the answers of a running service.
"""

import asyncio
from datetime import datetime
from typing import Any

import httpx
import pytest
import redis

from api.routes.async_rerank import MAX_RESULT_SECONDS
from shared.contracts import WorkClass
from shared.keys import job_keys, pool_keys
from shared.ledger.job_record import JobFailure
from shared.ledger.worker_ledger import WorkerLedger
from tests.api.routes.conftest import Api
from tests.api.support import Worker
from tests.shared.support import MODEL, make_lease, make_scores
from tests.wire.async_jobs import mask_job, recorded

PATH = "/bifrost/v1/async/rerank"
BODY: dict[str, Any] = {"query": "q", "documents": ["one", "two"]}
TTL = "x-bf-async-job-result-ttl"


async def submit(api: Api, **headers: str) -> str:
    response = await api.mine.post(PATH, json=BODY, headers={name.replace("_", "-"): headers[name] for name in headers})
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


def check(response: httpx.Response, job_id: str, state: str) -> None:
    example = recorded(f"bifrost-state-{state}")
    assert (response.status_code, mask_job(response.json(), job_id)) == (example["status"], example["answer"])


async def test_job_is_pending_then_processing_then_completed(api: Api, redis_client: redis.Redis) -> None:
    job_id = await submit(api)
    check(await api.mine.get(f"{PATH}/{job_id}"), job_id, "pending")
    worker, lease = WorkerLedger(redis_client, MODEL), make_lease(job_id=job_id)
    worker.claim(lease)
    check(await api.mine.get(f"{PATH}/{job_id}"), job_id, "processing")
    worker.finish(lease, make_scores(), WorkClass.BATCH)
    ended = await api.mine.get(f"{PATH}/{job_id}")
    assert (ended.status_code, ended.json()["status"], ended.json()["status_code"]) == (200, "completed", 200)
    assert ended.json()["result"] == (await api.mine.get(f"/v1/jobs/{job_id}/results")).json()


async def test_canceled_job_has_failed(api: Api) -> None:
    job_id = await submit(api)
    await api.mine.post(f"/v1/jobs/{job_id}/cancel")
    check(await api.mine.get(f"{PATH}/{job_id}"), job_id, "canceled")


async def test_job_that_the_engine_cannot_score_has_failed(api: Api, redis_url: str) -> None:
    job_id = await submit(api)
    await Worker(redis_url, JobFailure("scoring_failed", "the engine broke")).process_one()
    check(await api.mine.get(f"{PATH}/{job_id}"), job_id, "broken")


async def test_expired_job_has_failed(api: Api, redis_client: redis.Redis) -> None:
    job_id = await submit(api)
    redis_client.zadd(pool_keys.deadlines(MODEL), {job_id: 1})
    for _ in range(150):
        if (response := await api.mine.get(f"{PATH}/{job_id}")).status_code == 200:
            return check(response, job_id, "expired")
        await asyncio.sleep(0.1)
    raise AssertionError("the job does not expire")


async def test_job_of_another_key_or_of_many_requests_is_404(api: Api) -> None:
    job_id, bulk_id = await submit(api), await api.create_job()
    check(await api.other.get(f"{PATH}/{job_id}"), job_id, "unknown")
    check(await api.mine.get(f"{PATH}/{bulk_id}"), bulk_id, "unknown")


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        (None, 3600),
        ("60", 60),
        (" 60 ", 60),
        ("999999999", MAX_RESULT_SECONDS),
        *((ignored, 3600) for ignored in ("", "0", "-1", "1.5", "1h", "٣", "9" * 30)),
    ],
)
async def test_result_lives_as_long_as_the_header_says(
    api: Api, redis_client: redis.Redis, asked: str | None, seconds: float
) -> None:
    headers = [] if asked is None else [(TTL.encode(), asked.encode())]
    job_id = (await api.mine.post(PATH, json=BODY, headers=headers)).json()["id"]
    await api.mine.post(f"/v1/jobs/{job_id}/cancel")
    ended = (await api.mine.get(f"{PATH}/{job_id}")).json()
    completed, expires = (datetime.fromisoformat(ended[name]) for name in ("completed_at", "expires_at"))
    assert (expires - completed).total_seconds() == seconds
    assert seconds - 5 < redis_client.ttl(job_keys.job(job_id)) <= seconds


async def test_fallback_is_tried_when_the_model_is_not_served(api: Api) -> None:
    body = BODY | {"model": "cohere/nope", "fallbacks": ["other/nope", f"vllm/{MODEL}"]}
    job_id = (await api.mine.post(PATH, json=body)).json()["id"]
    assert (await api.mine.get(f"/v1/jobs/{job_id}")).json()["model"] == MODEL
    refused = await api.mine.post(PATH, json=BODY | {"model": "cohere/nope"})
    assert (refused.status_code, refused.json()["error"]["type"]) == (404, "model_not_found")


async def test_webhook_at_the_root_reports_the_end(api: Api) -> None:
    webhook = {"url": "https://receiver.invalid/hook"}
    job_id = (await api.mine.post("/v1/async/rerank", json=BODY | {"webhook": webhook})).json()["id"]
    await api.mine.post(f"/v1/jobs/{job_id}/cancel")
    (delivery,) = (await api.mine.get("/v1/webhooks/default/deliveries")).json()["data"]
    assert (delivery["type"], delivery["job"]) == ("job.canceled", job_id)


async def test_requests_with_the_same_idempotency_key_share_a_job(api: Api) -> None:
    assert await submit(api, Idempotency_Key="mine") == await submit(api, Idempotency_Key="mine")
