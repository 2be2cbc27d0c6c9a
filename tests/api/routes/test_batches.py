"""`/v1/batches`: create, list, read and cancel."""

from typing import Any

import pytest

from tests.api.batches.support import Bench, StubLines, good_line, lines_as_file
from tests.api.routes.conftest import Api, error_of

LINES = lines_as_file([good_line(number) for number in range(1, 4)])


async def test_new_batch_is_described_as_openai_does(api: Api) -> None:
    batch = await api.create_batch(LINES, metadata={"team": "search"})
    absent = ("errors", "output_file_id", "error_file_id", "in_progress_at", "finalizing_at", "cancelling_at")
    ends = ("completed_at", "failed_at", "expired_at", "cancelled_at")
    assert (
        batch.items()
        >= {
            "object": "batch",
            "status": "validating",
            "endpoint": "/v1/rerank",
            "completion_window": "24h",
            "metadata": {"team": "search"},
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
            **dict.fromkeys((*absent, *ends)),
        }.items()
    )
    assert batch["expires_at"] - batch["created_at"] == 86_400
    assert (await api.mine.get(f"/v1/batches/{batch['id']}")).json() == batch


async def test_completed_batch_names_its_files(api: Api, bench: Bench) -> None:
    batch = await api.create_batch(LINES)
    await bench.run(StubLines(failing=(1,)), batch_id=batch["id"])
    batch = (await api.mine.get(f"/v1/batches/{batch['id']}")).json()
    assert (batch["status"], batch["request_counts"]) == ("completed", {"total": 3, "completed": 2, "failed": 1})
    assert batch["completed_at"] >= batch["finalizing_at"] >= batch["in_progress_at"] >= batch["created_at"]
    progress = batch["progress"]
    assert (progress["requests_done"], progress["pairs_done"], progress["pairs_total"]) == (3, 6, 6)
    for name in ("output_file_id", "error_file_id"):
        assert (await api.mine.get(f"/v1/files/{batch[name]}")).status_code == 200


async def test_failed_batch_names_its_errors(api: Api, bench: Bench) -> None:
    batch = await api.create_batch(lines_as_file([good_line(1), b"", good_line(1)]))
    await bench.run(batch_id=batch["id"])
    batch = (await api.mine.get(f"/v1/batches/{batch['id']}")).json()
    (error,) = batch["errors"]["data"]
    assert (batch["status"], error["code"], error["line"], error["param"]) == (
        "failed",
        "duplicate_custom_id",
        3,
        "custom_id",
    )
    assert batch["failed_at"]


async def test_batch_of_an_empty_file_fails(api: Api, bench: Bench) -> None:
    batch = await api.create_batch(b"")
    await bench.run(batch_id=batch["id"])
    batch = (await api.mine.get(f"/v1/batches/{batch['id']}")).json()
    assert (batch["status"], batch["errors"]["data"][0]["message"]) == ("failed", "the input has no requests")


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"input_file_id": "file-unknown"}, 404, "file_id"),
        ({"input_file_id": None}, 400, "input_file_id"),
        ({"input_file_id": ["file-1"]}, 400, "input_file_id"),
        ({"endpoint": "/v1/embeddings"}, 400, "endpoint"),
        ({"endpoint": None}, 400, "endpoint"),
        ({"completion_window": "soon"}, 400, "completion_window"),
        ({"completion_window": "31d"}, 400, "completion_window"),
        ({"metadata": {"a": 1}}, 400, "metadata"),
        ({"request_params": "x"}, 400, "request_params"),
        ({"request_params": {"model": "unknown"}}, 404, "model"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, 400, "output_expires_after"),
    ],
)
async def test_field_that_is_wrong_is_named(api: Api, fields: dict[str, Any], status: int, param: str) -> None:
    body = {"input_file_id": (await api.upload())["id"], "endpoint": "/v1/rerank", "completion_window": "24h"} | fields
    assert error_of(await api.mine.post("/v1/batches", json=body)) == (status, param)
    assert (await api.mine.get("/v1/batches")).json()["data"] == []


@pytest.mark.parametrize("content", [b"", b"[]", b"not JSON", b"\xff"])
async def test_body_that_is_no_object_is_an_error(api: Api, content: bytes) -> None:
    assert error_of(await api.mine.post("/v1/batches", content=content)) == (400, None)


async def test_idempotency_key(api: Api) -> None:
    body = {"input_file_id": (await api.upload())["id"], "endpoint": "/v1/rerank"}
    headers = {"Idempotency-Key": "mine"}
    first, second = [await api.mine.post("/v1/batches", json=body, headers=headers) for _ in range(2)]
    assert first.json()["id"] == second.json()["id"]
    other = await api.mine.post("/v1/batches", json=body | {"metadata": {"a": "b"}}, headers=headers)
    assert error_of(other) == (422, "Idempotency-Key")


async def test_cancelled_batch_keeps_its_status(api: Api, bench: Bench) -> None:
    batch = await api.create_batch(LINES)
    path = f"/v1/batches/{batch['id']}"
    for _ in range(2):
        cancelled = (await api.mine.post(f"{path}/cancel")).json()
        assert (cancelled["status"], cancelled["cancelling_at"] > 0) == ("cancelling", True)
    await bench.run(batch_id=batch["id"])
    batch = (await api.mine.post(f"{path}/cancel")).json()
    assert (batch["status"], batch["request_counts"]["failed"]) == ("cancelled", 3)


async def test_batch_of_another_key_is_404(api: Api) -> None:
    batch = await api.create_batch()
    path = f"/v1/batches/{batch['id']}"
    for call in (api.other.get(path), api.other.post(f"{path}/cancel"), api.mine.get(f"{path}x")):
        assert error_of(await call) == (404, "id")
    body = {"input_file_id": batch["input_file_id"], "endpoint": "/v1/rerank"}
    assert error_of(await api.other.post("/v1/batches", json=body)) == (404, "file_id")
    assert (await api.other.get("/v1/batches")).json()["data"] == []
    assert error_of(await api.other.get("/v1/batches", params={"after": batch["id"]})) == (404, "id")


async def test_pages_together_have_every_batch_once(api: Api) -> None:
    created = [(await api.create_batch())["id"] for _ in range(5)]
    await api.create_job()
    seen: list[str] = []
    page: dict[str, Any] = {"has_more": True, "last_id": None}
    while page["has_more"]:
        after = {} if page["last_id"] is None else {"after": page["last_id"]}
        page = (await api.mine.get("/v1/batches", params={"limit": "2"} | after)).json()
        seen += [batch["id"] for batch in page["data"]]
    assert sorted(seen) == sorted(created)


@pytest.mark.parametrize("value", ["0", "101", "-1", "ten", ""])
async def test_limit_that_is_wrong_is_named(api: Api, value: str) -> None:
    assert error_of(await api.mine.get("/v1/batches", params={"limit": value})) == (400, "limit")
