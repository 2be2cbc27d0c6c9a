"""Jobs of many requests: create, follow, read in pages, cancel and delete."""

import asyncio
from typing import Any

import pytest

from tests.api.batches.support import Bench, StubLines
from tests.api.payloads.support import objects
from tests.api.routes.conftest import Api, error_of
from tests.api.routes.event_streams import events_of

REQUEST = {"query": "q", "documents": ["a"]}


async def test_new_job_is_described(api: Api) -> None:
    body = {"requests": [REQUEST], "model": "test-model", "deadline": 60, "wake": "when_warm", "metadata": {"a": "b"}}
    response = await api.mine.post("/v1/jobs", json=body)
    job = response.json()
    assert (response.status_code, response.headers["location"]) == (202, f"/v1/jobs/{job['id']}")
    assert (
        job.items()
        >= {
            "object": "job",
            "status": "queued",
            "model": "test-model",
            "wake": "when_warm",
            "metadata": {"a": "b"},
            "results": f"/v1/jobs/{job['id']}/results",
            "events": f"/v1/jobs/{job['id']}/events",
        }.items()
    )
    assert job["expires"] - job["created"] == 60
    assert (await api.mine.get(f"/v1/jobs/{job['id']}")).json() == job


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"requests": None}, 400, "requests"),
        ({"requests": []}, 400, "requests"),
        ({"requests": ["x"]}, 400, "requests"),
        ({"requests": [{"custom_id": "a"}] * 2}, 400, "requests[1].custom_id"),
        ({"model": "unknown"}, 404, "model"),
        ({"defaults": {"model": "unknown"}}, 404, "model"),
        ({"defaults": []}, 400, "defaults"),
        ({"deadline": "31d"}, 400, "deadline"),
        ({"deadline": -1}, 400, "deadline"),
        ({"wake": "later"}, 400, "wake"),
        ({"metadata": [1]}, 400, "metadata"),
    ],
)
async def test_field_that_is_wrong_is_named(
    api: Api, bench: Bench, fields: dict[str, Any], status: int, param: str
) -> None:
    response = await api.mine.post("/v1/jobs", json={"requests": [REQUEST]} | fields)
    assert error_of(response) == (status, param)
    assert await objects(bench.payloads) == {}


async def test_body_over_the_limit_is_413(api: Api) -> None:
    assert error_of(await api.mine.post("/v1/jobs", json={"requests": [REQUEST] * 1000}))[0] == 413


async def test_idempotency_key(api: Api) -> None:
    headers = {"Idempotency-Key": "mine"}
    body = {"requests": [REQUEST]}
    first, second = [(await api.mine.post("/v1/jobs", json=body, headers=headers)).json() for _ in range(2)]
    assert first["id"] == second["id"]
    other = await api.mine.post("/v1/jobs", json={"requests": [REQUEST] * 2}, headers=headers)
    assert error_of(other) == (422, "Idempotency-Key")
    await api.mine.delete(f"/v1/jobs/{first['id']}")
    assert (await api.mine.post("/v1/jobs", json=body, headers=headers)).status_code == 202


async def test_job_of_another_key_is_404(api: Api) -> None:
    path = f"/v1/jobs/{await api.create_job()}"
    calls = [
        api.other.get(path),
        api.other.get(f"{path}/results"),
        api.other.get(f"{path}/events"),
        api.other.post(f"{path}/cancel"),
        api.other.delete(path),
    ]
    assert [error_of(await call) for call in calls] == [(404, "id")] * 5
    assert (await api.mine.get(path)).json()["status"] == "queued"


@pytest.mark.parametrize("job_id", ["bulk-unknown", "job-unknown", "batch_unknown"])
async def test_unknown_job_has_no_events(api: Api, job_id: str) -> None:
    assert error_of(await api.mine.get(f"/v1/jobs/{job_id}/events")) == (404, "id")


class TestPages:
    async def test_pages_have_every_result_once(self, api: Api, bench: Bench) -> None:
        job_id = await api.create_job(5)
        await bench.run(StubLines(failing=(2,)), batch_id=job_id)
        after: int | None = 0
        seen: list[dict[str, Any]] = []
        while after is not None:
            page = (await api.mine.get(f"/v1/jobs/{job_id}/results", params={"after": after, "limit": 2})).json()
            assert page["has_more"] == (page["next"] is not None)
            seen += page["data"]
            after = page["next"]
        assert [row["index"] for row in seen] == [0, 1, 2, 3, 4]
        assert seen[0] == {"index": 0, "custom_id": "r1", "result": {"results": [1]}}
        assert seen[1] == {"index": 1, "custom_id": "r2", "error": {"type": "x", "message": "no", "param": None}}

    async def test_page_can_be_read_while_the_job_runs(self, api: Api) -> None:
        job_id = await api.create_job()
        page = (await api.mine.get(f"/v1/jobs/{job_id}/results")).json()
        assert page == {"object": "list", "data": [], "has_more": True, "next": 0}

    async def test_page_behind_the_end_is_empty(self, api: Api, bench: Bench) -> None:
        job_id = await api.create_job()
        await bench.run(batch_id=job_id)
        page = (await api.mine.get(f"/v1/jobs/{job_id}/results", params={"after": "99"})).json()
        assert page == {"object": "list", "data": [], "has_more": False, "next": None}

    @pytest.mark.parametrize(
        ("name", "value"), [("after", "-1"), ("after", "x"), ("limit", "0"), ("limit", "1001"), ("limit", "1.5")]
    )
    async def test_parameter_that_is_wrong_is_named(self, api: Api, name: str, value: str) -> None:
        job_id = await api.create_job()
        assert error_of(await api.mine.get(f"/v1/jobs/{job_id}/results", params={name: value})) == (400, name)


@pytest.mark.usefixtures("fast")
class TestEvents:
    async def test_results_are_in_order_and_the_end_is_last(self, api: Api, bench: Bench) -> None:
        job_id = await api.create_job(4)
        following = asyncio.create_task(api.mine.get(f"/v1/jobs/{job_id}/events"))
        await asyncio.sleep(0.1)
        await bench.run(StubLines(failing=(3,)), batch_id=job_id)
        async with asyncio.timeout(5):
            response = await following
        assert response.headers["content-type"].startswith("text/event-stream")
        events = events_of(response.text)
        results = [(number, data["index"]) for name, number, data in events if name == "result"]
        assert results == [("1", 0), ("2", 1), ("3", 2), ("4", 3)]
        assert (events[0][0], events[0][2]["requests_done"]) == ("progress", 0)
        assert (events[-1][0], events[-1][2]["status"]) == ("end", "succeeded")
        assert {name for name, _, _ in events[:-1]} == {"progress", "result"}

    @pytest.mark.parametrize("last", [0, 1, 3, 4, 9])
    async def test_stream_continues_behind_the_last_event(self, api: Api, bench: Bench, last: int) -> None:
        job_id = await api.create_job(4)
        await bench.run(batch_id=job_id)
        response = await api.mine.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": str(last)})
        events = events_of(response.text)
        missing = [str(number) for number in range(last + 1, 5)]
        assert [number for name, number, _ in events if name == "result"] == missing
        assert events[-1][0] == "end"

    async def test_results_can_be_left_out(self, api: Api, bench: Bench) -> None:
        job_id = await api.create_job(4)
        await bench.run(batch_id=job_id)
        response = await api.mine.get(f"/v1/jobs/{job_id}/events?results=false")
        assert [name for name, _, _ in events_of(response.text)] == ["progress", "end"]

    async def test_deletion_ends_the_stream_without_an_end(self, api: Api) -> None:
        job_id = await api.create_job()
        following = asyncio.create_task(api.mine.get(f"/v1/jobs/{job_id}/events"))
        await asyncio.sleep(0.1)
        await api.mine.delete(f"/v1/jobs/{job_id}")
        async with asyncio.timeout(5):
            assert [name for name, _, _ in events_of((await following).text)] == ["progress"]

    @pytest.mark.parametrize("last", ["x", "-1", "1.5", "1" * 13, "٣"])
    async def test_last_event_that_is_wrong_is_named(self, api: Api, last: str) -> None:
        job_id = await api.create_job()
        headers = {"Last-Event-ID": last.encode()}
        response = await api.mine.get(f"/v1/jobs/{job_id}/events", headers=headers)  # type: ignore[arg-type]
        assert error_of(response) == (400, "Last-Event-ID")

    async def test_silent_stream_is_kept_alive(self, api: Api, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("api.http.event_stream.KEEP_ALIVE_SECONDS", 0.05)
        job_id = await api.create_job()
        following = asyncio.create_task(api.mine.get(f"/v1/jobs/{job_id}/events"))
        await asyncio.sleep(0.3)
        await bench.run(batch_id=job_id)
        async with asyncio.timeout(5):
            assert b": waiting\n\n" in (await following).content


class TestEnds:
    @pytest.mark.usefixtures("fast")
    async def test_wait_ends_with_the_job(self, api: Api, bench: Bench) -> None:
        job_id = await api.create_job()
        waiting = asyncio.create_task(api.mine.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=20"}))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await bench.run(batch_id=job_id)
        async with asyncio.timeout(5):
            job = (await waiting).json()
        assert (job["status"], job["progress"]["requests_done"]) == ("succeeded", 3)
        assert job["finished"] >= job["started"] >= job["created"]

    async def test_wait_ends_after_its_time(self, api: Api) -> None:
        job_id = await api.create_job()
        response = await api.mine.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=1"})
        assert (response.json()["status"], response.headers["preference-applied"]) == ("queued", "wait=1")

    async def test_canceled_job_marks_what_was_not_run(self, api: Api, bench: Bench) -> None:
        job_id = await api.create_job()
        assert (await api.mine.post(f"/v1/jobs/{job_id}/cancel")).json()["status"] == "running"
        await bench.run(batch_id=job_id)
        assert (await api.mine.get(f"/v1/jobs/{job_id}")).json()["status"] == "canceled"
        rows = (await api.mine.get(f"/v1/jobs/{job_id}/results")).json()["data"]
        assert [row["error"]["type"] for row in rows] == ["batch_cancelled"] * 3

    async def test_deleted_job_is_gone(self, api: Api, bench: Bench) -> None:
        job_id = await api.create_job()
        await bench.run(batch_id=job_id)
        assert (await api.mine.delete(f"/v1/jobs/{job_id}")).status_code == 204
        for path in ("", "/results", "/events"):
            assert error_of(await api.mine.get(f"/v1/jobs/{job_id}{path}")) == (404, "id")
        assert await objects(bench.payloads) == {}
