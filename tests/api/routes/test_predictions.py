"""Replicate's predictions: the states that they pass, waiting, keys and models. tests/wire has answers of a service."""

import asyncio
import time
from typing import Any

import httpx
import pytest
import redis

from shared.contracts import WorkClass
from shared.keys import pool_keys, queue_keys
from shared.ledger.job_record import JobFailure
from shared.ledger.worker_ledger import WorkerLedger
from tests.api.routes.conftest import Api
from tests.api.support import Worker
from tests.shared.support import MODEL, make_lease, make_scores
from tests.wire.replicate_examples import mask_prediction, recorded

PATH = "/replicate/v1/predictions"
OF_MODEL = f"/replicate/v1/models/any/{MODEL}"
INPUT: dict[str, Any] = {"query": "q", "documents": ["one", "two"]}


async def create(api: Api, **headers: str) -> dict[str, Any]:
    response = await api.mine.post(PATH, json={"version": MODEL, "input": INPUT}, headers=headers)
    assert response.status_code == 201, response.text
    found: dict[str, Any] = response.json()
    return found


async def check(api: Api, job_id: str, state: str) -> None:
    response, example = await api.mine.get(f"{PATH}/{job_id}"), recorded(f"state-{state}")
    assert (response.status_code, mask_prediction(response.json())) == (example["status"], example["answer"])


def error_of(response: httpx.Response) -> tuple[int, str]:
    """The status, and the field that the error names."""
    body = response.json()
    assert body["status"] == response.status_code
    assert "\n" not in body["detail"]
    return response.status_code, body["invalid_fields"][0]["field"]


async def test_prediction_is_starting_then_processing_then_succeeded(api: Api, redis_client: redis.Redis) -> None:
    job_id = (await create(api))["id"]
    await check(api, job_id, "starting")
    worker, lease = WorkerLedger(redis_client, MODEL), make_lease(job_id=job_id)
    worker.claim(lease)
    await check(api, job_id, "processing")
    worker.finish(lease, make_scores(), WorkClass.BATCH)
    ended = (await api.mine.get(f"{PATH}/{job_id}")).json()
    assert (ended["status"], ended["error"]) == ("succeeded", None)
    assert ended["output"] == (await api.mine.get(f"/v1/jobs/{job_id}/results")).json()


async def test_cancellation_answers_with_the_prediction(api: Api) -> None:
    job_id = (await create(api))["id"]
    canceled = await api.mine.post(f"{PATH}/{job_id}/cancel")
    assert (canceled.status_code, canceled.json()["status"]) == (200, "canceled")
    await check(api, job_id, "canceled")
    assert (await api.mine.post(f"{PATH}/{job_id}/cancel")).json() == canceled.json()


async def test_prediction_that_the_engine_cannot_score_has_failed(api: Api, redis_url: str) -> None:
    job_id = (await create(api))["id"]
    await Worker(redis_url, JobFailure("scoring_failed", "the engine broke")).process_one()
    await check(api, job_id, "broken")


async def test_expired_prediction_has_failed(api: Api, redis_client: redis.Redis) -> None:
    job_id = (await create(api))["id"]
    redis_client.zadd(pool_keys.deadlines(MODEL), {job_id: 1})
    for _ in range(150):
        if (await api.mine.get(f"{PATH}/{job_id}")).json()["status"] == "failed":
            return await check(api, job_id, "expired")
        await asyncio.sleep(0.1)
    raise AssertionError("the prediction does not expire")


@pytest.mark.parametrize("claimed", [False, True])
async def test_call_that_waits_in_vain_answers_starting(api: Api, redis_client: redis.Redis, claimed: bool) -> None:
    """Also when the job runs: the SDK reads `processing` as the end of the prediction."""
    body = {"version": MODEL, "input": INPUT}
    started = time.monotonic()
    waiting = asyncio.create_task(api.mine.post(PATH, json=body, headers={"Prefer": "wait=1"}))
    if claimed:
        await asyncio.sleep(0.3)
        (job,) = (await api.mine.get("/v1/jobs")).json()["data"]
        WorkerLedger(redis_client, MODEL).claim(make_lease(job_id=job["id"]))
    response = await waiting
    assert 0.9 < time.monotonic() - started < 1.4
    assert (response.status_code, response.json()["status"]) == (202, "starting")
    shown = (await api.mine.get(f"{PATH}/{response.json()['id']}")).json()["status"]
    assert shown == ("processing" if claimed else "starting")


@pytest.mark.parametrize(
    ("prefer", "work_class"), [(None, WorkClass.BATCH), ("wait=0", WorkClass.BATCH), ("wait=1", WorkClass.INTERACTIVE)]
)
async def test_only_a_call_that_waits_is_interactive(
    api: Api, redis_client: redis.Redis, prefer: str | None, work_class: WorkClass
) -> None:
    headers = {} if prefer is None else {"Prefer": prefer}
    await api.mine.post(PATH, json={"version": MODEL, "input": INPUT}, headers=headers)
    waiting = {each: redis_client.llen(queue_keys.queue(MODEL, each)) for each in WorkClass}
    assert waiting == {each: int(each is work_class) for each in WorkClass}


async def test_prediction_of_another_key_or_of_many_requests_is_404(api: Api) -> None:
    job_id, bulk_id = (await create(api))["id"], await api.create_job()
    for client, each in ((api.other, job_id), (api.mine, bulk_id)):
        for response in (await client.get(f"{PATH}/{each}"), await client.post(f"{PATH}/{each}/cancel")):
            assert (response.status_code, response.json()["type"]) == (404, "job_not_found")


@pytest.mark.parametrize("version", [MODEL, f"any/{MODEL}", f"any/{MODEL}:7f7c6e9d", f"{MODEL}:latest"])
async def test_version_names_a_model(api: Api, version: str) -> None:
    response = await api.mine.post(PATH, json={"version": version, "input": INPUT})
    assert (response.json()["model"], response.json()["version"]) == (f"rerankq/{MODEL}", MODEL)


async def test_model_has_one_version_that_names_it(api: Api) -> None:
    model = (await api.mine.get(OF_MODEL)).json()
    version = (await api.mine.get(f"{OF_MODEL}/versions/{model['latest_version']['id']}")).json()
    assert version == model["latest_version"]
    assert version["openapi_schema"]["components"]["schemas"]["Input"]["required"] == ["query", "documents"]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"input": INPUT}, 422, "version"),
        ({"version": 3, "input": INPUT}, 422, "version"),
        ({"version": "nope:1", "input": INPUT}, 422, "version"),
        ({"version": MODEL}, 422, "input"),
        ({"version": MODEL, "input": [INPUT]}, 422, "input"),
        ({"version": MODEL, "input": INPUT | {"documents": 3}}, 422, "input.documents"),
        ({"version": MODEL, "input": INPUT | {"model": "nope"}}, 422, "input.model"),
        ({"version": MODEL, "input": INPUT | {"webhook": 3}}, 422, "input.webhook"),
        ({"version": MODEL, "input": {"input_list": "[["}}, 422, "input.input_list"),
        ({"version": MODEL, "input": INPUT, "webhook": "https://example.com"}, 422, "webhook"),
        ({"version": MODEL, "input": INPUT, "webhook_events_filter": ["start"]}, 422, "webhook_events_filter"),
    ],
)
async def test_invalid_field_is_named(api: Api, body: dict[str, Any], status: int, field: str) -> None:
    assert error_of(await api.mine.post(PATH, json=body)) == (status, field)


@pytest.mark.parametrize("given", [INPUT, {"input_list": [["q", "one"]]}], ids=["superset", "pairs"])
async def test_webhook_in_the_input_reports_the_end(api: Api, given: dict[str, Any]) -> None:
    body = {"version": MODEL, "input": given | {"webhook": "https://receiver.invalid/hook"}}
    job_id = (await api.mine.post(PATH, json=body)).json()["id"]
    await api.mine.post(f"{PATH}/{job_id}/cancel")
    (delivery,) = (await api.mine.get("/v1/webhooks/default/deliveries")).json()["data"]
    assert (delivery["type"], delivery["job"]) == ("job.canceled", job_id)


async def test_requests_with_the_same_idempotency_key_share_a_prediction(api: Api) -> None:
    headers = {"Idempotency-Key": "mine"}
    assert (await create(api, **headers))["id"] == (await create(api, **headers))["id"]
