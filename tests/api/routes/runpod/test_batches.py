"""RunPod's batches: requests are collected, and run as one job. tests/wire runs one to its end."""

from typing import Any

import pytest

from tests.api.routes.runpod.conftest import DOCS, ENDPOINT, Api, error_of

OURS = {"query": "q", "documents": ["a", "b"]}


async def create(api: Api, body: Any = None) -> str:
    response = await api.mine.post(f"{ENDPOINT}/batch", json=body)
    assert response.status_code == 200, response.text
    return str(response.json()["id"])


def counts(total: int) -> dict[str, int]:
    return {"total": total, "completed": 0, "failed": 0}


async def test_requests_are_collected_until_the_batch_is_finalized(api: Api) -> None:
    batch_id = await create(api, [DOCS])
    added = await api.mine.post(f"{ENDPOINT}/batch/{batch_id}/requests", json={"requests": [{"input": OURS}, DOCS]})
    batch = {"id": batch_id, "status": "OPEN", "requests": counts(3)}
    assert (added.status_code, added.json()) == (200, batch)
    assert await api.read(batch_id, "batch") == batch
    finalized = await api.post(f"batch/{batch_id}/finalize")
    assert (finalized["id"], finalized["status"]) == (batch_id, "IN_QUEUE")
    assert await api.post(f"batch/{batch_id}/finalize") == finalized
    assert (await api.read(batch_id))["status"] == "IN_QUEUE"
    assert (await api.mine.get(f"/v1/jobs/{batch_id}")).json()["object"] == "job"


@pytest.mark.parametrize("body", [None, [], {}, {"requests": []}])
async def test_batch_may_begin_without_requests(api: Api, body: Any) -> None:
    batch_id = await create(api, body)
    assert error_of(await api.mine.post(f"{ENDPOINT}/batch/{batch_id}/finalize")) == (400, "id")
    assert (await api.read(batch_id, "batch"))["status"] == "OPEN"


async def test_finalized_batch_takes_no_requests(api: Api) -> None:
    batch_id = await create(api, [DOCS])
    await api.post(f"batch/{batch_id}/finalize")
    assert error_of(await api.mine.post(f"{ENDPOINT}/batch/{batch_id}/requests", json=[DOCS])) == (400, "id")


@pytest.mark.parametrize("finalized", [False, True])
async def test_batch_can_be_cancelled(api: Api, finalized: bool) -> None:
    batch_id = await create(api, [DOCS])
    if finalized:
        await api.post(f"batch/{batch_id}/finalize")
    assert (await api.post(f"batch/{batch_id}/cancel"))["status"] == "CANCELLED"
    assert (await api.read(batch_id, "batch"))["status"] == "CANCELLED"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ("text", "requests"),
        ({"requests": DOCS}, "requests"),
        (["text"], "requests[0]"),
        ([DOCS, {"query": "q"}], "requests[1].documents"),
        ([{"input": OURS | {"top_n": 0}}], "requests[0].input.top_n"),
        ([{"input": OURS, "policy": {"ttl": 1000}}], "requests[0].policy"),
        ([{"input": OURS, "webhook": "https://example.com"}], "requests[0].webhook"),
        ([OURS | {"model": "another-model"}], "requests[0].model"),
    ],
)
async def test_error_names_the_field_and_adds_nothing(api: Api, body: Any, param: str) -> None:
    assert error_of(await api.mine.post(f"{ENDPOINT}/batch", json=body)) == (400, param)
    batch_id = await create(api)
    assert error_of(await api.mine.post(f"{ENDPOINT}/batch/{batch_id}/requests", json=body)) == (400, param)
    assert (await api.read(batch_id, "batch"))["requests"] == counts(0)


async def test_another_keys_or_endpoints_batch_does_not_exist(api: Api) -> None:
    batch_id = await create(api, [DOCS])
    for client, endpoint in ((api.other, ENDPOINT), (api.mine, "/runpod/v2/another-model")):
        assert error_of(await client.get(f"{endpoint}/batch/{batch_id}")) == (404, "id")
        for operation in ("requests", "finalize", "cancel"):
            body = [{"query": "q", "docs": ["a"]}] if operation == "requests" else None
            response = await client.post(f"{endpoint}/batch/{batch_id}/{operation}", json=body)
            assert error_of(response) == (404, "id")
    assert (await api.read(batch_id, "batch"))["status"] == "OPEN"


async def test_too_many_open_batches_are_429(api: Api) -> None:
    for _ in range(4):
        await create(api)
    assert error_of(await api.mine.post(f"{ENDPOINT}/batch")) == (429, "id")
