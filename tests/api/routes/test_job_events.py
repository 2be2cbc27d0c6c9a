"""The events of a job of one request, on a real server. test_bulk_jobs.py has those of jobs of many requests."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import redis.asyncio
import uvicorn

from api.app import create_app
from api.http.http11 import limited_to
from api.settings import ApiSettings
from infra.local.redis_server import free_port
from shared.ledger.job_record import JobFailure
from shared.models import ModelRegistry, ModelSpec
from tests.api.conftest import wait_until_subscribed
from tests.api.http.test_http11 import wait_until_started
from tests.api.routes.event_streams import arriving, events_of
from tests.api.support import Worker
from tests.shared.support import MODEL

BODY: dict[str, Any] = {"query": "q", "documents": ["one", "two"], "return_documents": True}
SOON = 0.5
"""Seconds. Less than a job is looked at again after, so that only a notification comes within them."""


@asynccontextmanager
async def serving(redis_url: str, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of one more API process."""
    port = free_port()
    app = create_app(
        ApiSettings(redis_url=redis_url, batch_runner="separate", **settings), ModelRegistry([ModelSpec(name=MODEL)])
    )
    server = uvicorn.Server(
        uvicorn.Config(app, port=port, http=limited_to(8), ws="none", log_config=None, timeout_graceful_shutdown=1)
    )
    running = asyncio.create_task(server.serve())
    await wait_until_started(server)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False) as client:
            yield client
    finally:
        server.should_exit = True
        await running


@pytest.fixture
async def client(redis_url: str, async_client: redis.asyncio.Redis) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(redis_url) as opened:
        await wait_until_subscribed(async_client)
        yield opened


async def submit(client: httpx.AsyncClient, path: str = "/v1/rerank") -> str:
    response = await client.post(path, json=BODY, headers={"Prefer": "respond-async"})
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


async def read_events(client: httpx.AsyncClient, job_id: str, **headers: str) -> list[Any]:
    response = await client.get(f"/v1/jobs/{job_id}/events", headers={n.replace("_", "-"): headers[n] for n in headers})
    assert response.status_code == 200, response.text
    return events_of(response.text)


async def test_job_names_its_events(client: httpx.AsyncClient) -> None:
    job_id = await submit(client)
    assert (await client.get(f"/v1/jobs/{job_id}")).json()["events"] == f"/v1/jobs/{job_id}/events"


@pytest.mark.parametrize("path", ["/v1/rerank", "/infinity/rerank"])
async def test_progress_result_and_end_arrive_as_they_happen(
    client: httpx.AsyncClient, redis_url: str, path: str
) -> None:
    job_id = await submit(client, path)
    async with client.stream("GET", f"/v1/jobs/{job_id}/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert (response.headers["cache-control"], response.headers["x-accel-buffering"]) == ("no-store", "no")
        events = arriving(response)
        name, number, progress = await anext(events)
        assert (name, number, progress["status"], progress["pairs_done"]) == ("progress", None, "queued", 0)
        await asyncio.sleep(0.2)
        await Worker(redis_url).process_one()
        ended = time.monotonic()
        rest = [event async for event in events]
        assert time.monotonic() - ended < SOON
    assert [(name, number) for name, number, _ in rest] == [("progress", None), ("result", "1"), ("end", None)]
    assert (rest[0][2]["status"], rest[0][2]["pairs_done"]) == ("succeeded", 2)
    assert rest[1][2] == (await client.get(f"/v1/jobs/{job_id}/results")).json()
    assert rest[2][2] == (await client.get(f"/v1/jobs/{job_id}")).json()


async def test_end_of_a_job_of_another_process_arrives_at_once(client: httpx.AsyncClient, redis_url: str) -> None:
    async with serving(redis_url) as other:
        job_id = await submit(other)
    async with client.stream("GET", f"/v1/jobs/{job_id}/events") as response:
        events = arriving(response)
        await anext(events)
        await asyncio.sleep(0.2)
        await Worker(redis_url).process_one()
        ended = time.monotonic()
        assert [name async for name, _, _ in events][-1] == "end"
        assert time.monotonic() - ended < SOON


@pytest.mark.parametrize(("last", "results"), [("0", ["1"]), ("1", []), ("2", [])])
async def test_reader_that_comes_back_after_the_end_gets_the_end(
    client: httpx.AsyncClient, redis_url: str, last: str, results: list[str]
) -> None:
    job_id = await submit(client)
    await Worker(redis_url).process_one()
    for _ in range(2):
        events = await read_events(client, job_id, Last_Event_ID=last)
        assert [number for name, number, _ in events if name == "result"] == results
        assert (events[-1][0], events[-1][2]["status"]) == ("end", "succeeded")


async def test_result_can_be_left_out(client: httpx.AsyncClient, redis_url: str) -> None:
    job_id = await submit(client)
    await Worker(redis_url).process_one()
    response = await client.get(f"/v1/jobs/{job_id}/events?results=false")
    assert [name for name, _, _ in events_of(response.text)] == ["progress", "end"]
    refused = await client.get(f"/v1/jobs/{job_id}/events?results=no")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "results")
    refused = await client.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": "x"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "Last-Event-ID")


async def test_end_of_a_failed_job_has_the_reason(client: httpx.AsyncClient, redis_url: str) -> None:
    job_id = await submit(client)
    await Worker(redis_url, JobFailure("scoring_failed", "the engine broke")).process_one()
    events = await read_events(client, job_id)
    assert [name for name, _, _ in events] == ["progress", "end"]
    assert events[-1][2]["error"] == {"type": "scoring_failed", "message": "the engine broke"}


async def test_cancellation_ends_the_stream_at_once(client: httpx.AsyncClient) -> None:
    job_id = await submit(client)
    following = asyncio.create_task(read_events(client, job_id))
    await asyncio.sleep(0.2)
    await client.post(f"/v1/jobs/{job_id}/cancel")
    async with asyncio.timeout(SOON):
        assert (await following)[-1][2]["status"] == "canceled"


async def test_deletion_ends_the_stream_without_an_end(client: httpx.AsyncClient) -> None:
    job_id = await submit(client)
    following = asyncio.create_task(read_events(client, job_id))
    await asyncio.sleep(0.2)
    await client.delete(f"/v1/jobs/{job_id}")
    async with asyncio.timeout(5):
        assert [name for name, _, _ in await following] == ["progress"]
    assert (await client.get(f"/v1/jobs/{job_id}/events")).status_code == 404


async def test_stream_ends_after_the_preferred_time(client: httpx.AsyncClient) -> None:
    job_id = await submit(client)
    started = time.monotonic()
    assert [name for name, _, _ in await read_events(client, job_id, Prefer="wait=1")] == ["progress"]
    assert 0.9 < time.monotonic() - started < 3


async def test_silent_stream_is_kept_alive(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.http.event_stream.KEEP_ALIVE_SECONDS", 0.05)
    monkeypatch.setattr("api.jobs.followers.FOLLOW_SECONDS", 0.02)
    job_id = await submit(client)
    response = await client.get(f"/v1/jobs/{job_id}/events", headers={"Prefer": "wait=1"})
    assert response.text.count(": waiting\n\n") > 5
    assert [name for name, _, _ in events_of(response.text)] == ["progress"]


async def test_followers_count_as_waiting_callers_until_they_disconnect(
    redis_url: str, async_client: redis.asyncio.Redis
) -> None:
    async with serving(redis_url, max_waiting=1) as client:
        await wait_until_subscribed(async_client)
        job_id = await submit(client)
        path = f"/v1/jobs/{job_id}/events"
        async with client.stream("GET", path) as response:
            await anext(arriving(response))
            refused = await client.get(path)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert json.loads(refused.content)["error"]["type"] == "overloaded"
        # The connection is closed now, and the job has not ended.
        for _ in range(25):
            async with client.stream("GET", path) as response:
                if response.status_code == 200:
                    return
            await asyncio.sleep(SOON / 25)
        raise AssertionError("the follower that disconnected still counts")
