"""The text of event streams: each scenario below gets the recorded one, in examples/events.

Placeholders replace ids, times and rates. How often a progress event or comment is repeated depends on time: of equal
ones in a row, one is recorded.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.ledger.verdicts import ShardLease
from tests.api.batches.support import wait_until
from tests.wire.masks import mask_json, mask_text
from tests.wire.step_service import StepService, step_service

FOLDER = Path(__file__).parent / "examples" / "events"
BODY: dict[str, Any] = {
    "query": "What is a panda?",
    "documents": ["hi", "The giant panda is a bear species endemic to China."],
    "return_documents": True,
}
SHORT = {"query": "What is a panda?", "documents": ["hi"]}
REQUESTS = [
    {"custom_id": "first"} | SHORT,
    {"custom_id": "without-documents", "query": "q"},
    {"custom_id": "third"} | SHORT,
]
SECONDS = 5.0


@pytest.fixture
async def service(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StepService]:
    monkeypatch.setattr("api.jobs.followers.FOLLOW_SECONDS", 0.02)
    monkeypatch.setattr("api.routes.bulk_jobs.EVENT_SECONDS", 0.02)
    monkeypatch.setattr("api.background_tasks._CANCEL_AGAIN_SECONDS", 0.02)
    monkeypatch.setattr("api.batches.output.MIN_SEGMENT_SECONDS", 0.02)
    monkeypatch.setattr("api.batches.batch_writer.RENEW_SECONDS", 0.02)
    # A shard holds one document of BODY, and the window of a job of many requests holds all of REQUESTS.
    async with step_service(redis_url, tmp_path, shard_tokens=16) as started:
        yield started


class EventText:
    """The text of a stream, as far as it was read."""

    def __init__(self, response: httpx.Response) -> None:
        self.text = ""
        self._chunks = response.aiter_text()

    async def read_until(self, part: str) -> str:
        """Read until the text has this part. Returns all of it so far."""
        async with asyncio.timeout(SECONDS):
            while part not in self.text:
                self.text += await anext(self._chunks)
        return self.text

    async def read_all(self) -> str:
        """Read to the end of the stream. Returns the whole text."""
        async with asyncio.timeout(SECONDS):
            async for chunk in self._chunks:
                self.text += chunk
        return self.text


@asynccontextmanager
async def following(service: StepService, job_id: str, query: str = "", last: str = "") -> AsyncIterator[EventText]:
    headers = {"Last-Event-ID": last} if last else {}
    async with service.client.stream("GET", f"/v1/jobs/{job_id}/events{query}", headers=headers) as response:
        assert (response.status_code, response.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        yield EventText(response)


async def read_stream(service: StepService, job_id: str, query: str = "", last: str = "") -> str:
    async with following(service, job_id, query, last) as stream:
        return await stream.read_all()


async def submit(service: StepService) -> str:
    response = await service.client.post("/v1/rerank", json=BODY, headers={"Prefer": "respond-async"})
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


async def submit_many(service: StepService, **fields: Any) -> str:
    response = await service.client.post("/v1/jobs", json={"requests": REQUESTS} | fields)
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


async def score_first(service: StepService, job_id: str) -> ShardLease:
    """Score the first request of a job of many. When its result can be read, return the claim of the third."""
    await service.run_batches()
    first, third = sorted([await service.claim(), await service.claim()], key=lambda lease: lease.job_id)
    service.finish(first, 0.25)

    async def is_shown() -> bool:
        job, page = [(await service.client.get(f"/v1/jobs/{job_id}{path}")).json() for path in ("", "/results")]
        return "pairs_per_second" in job["progress"] and len(page["data"]) == 2

    await wait_until(is_shown, SECONDS)
    return third


async def score_all(service: StepService) -> str:
    """Run a job of many requests to its end. Returns its id."""
    job_id = await submit_many(service, metadata={"run": "7"})
    service.finish(await score_first(service, job_id), 0.75)
    await read_stream(service, job_id)
    return job_id


async def one_succeeded(service: StepService) -> str:
    async with following(service, await submit(service)) as stream:
        await stream.read_until("queued")
        first = await service.claim()
        await stream.read_until("running")
        service.finish(first, 0.25)
        await stream.read_until('"shards_done":1')
        service.finish(await service.claim(), 0.75)
        return await stream.read_all()


async def one_failed(service: StepService) -> str:
    job_id = await submit(service)
    service.fail(await service.claim())
    return await read_stream(service, job_id)


async def one_canceled(service: StepService) -> str:
    job_id = await submit(service)
    async with following(service, job_id) as stream:
        await stream.read_until("queued")
        await service.client.post(f"/v1/jobs/{job_id}/cancel")
        return await stream.read_all()


async def one_expired(service: StepService) -> str:
    job_id = await submit(service)
    async with following(service, job_id) as stream:
        await stream.read_until("queued")
        service.expire(job_id)
        return await stream.read_all()


async def one_deleted(service: StepService) -> str:
    job_id = await submit(service)
    async with following(service, job_id) as stream:
        await stream.read_until("queued")
        await service.client.delete(f"/v1/jobs/{job_id}")
        return await stream.read_all()


async def one_silent(service: StepService) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("api.http.event_stream.KEEP_ALIVE_SECONDS", 0.05)
        async with following(service, await submit(service)) as stream:
            return await stream.read_until(": waiting\n\n")


async def one_continued_behind_its_result(service: StepService) -> str:
    job_id = await submit(service)
    for score in (0.25, 0.75):
        service.finish(await service.claim(), score)
    return await read_stream(service, job_id, last="1")


async def many_queued(service: StepService) -> str:
    async with following(service, await submit_many(service)) as stream:
        return await stream.read_until("\n\n")


async def many_running(service: StepService) -> str:
    job_id = await submit_many(service)
    third = await score_first(service, job_id)
    async with following(service, job_id) as stream:
        text = await stream.read_until("event: progress")
        service.finish(third, 0.75)
        await stream.read_all()
    return text


async def many_succeeded(service: StepService) -> str:
    return await read_stream(service, await score_all(service))


async def many_continued_behind_the_second_result(service: StepService) -> str:
    return await read_stream(service, await score_all(service), last="2")


async def many_without_results(service: StepService) -> str:
    return await read_stream(service, await score_all(service), query="?results=false")


async def many_canceled(service: StepService) -> str:
    job_id = await submit_many(service)
    await score_first(service, job_id)
    await service.client.post(f"/v1/jobs/{job_id}/cancel")
    await read_stream(service, job_id)
    return await read_stream(service, job_id)


async def many_expired(service: StepService) -> str:
    job_id = await submit_many(service, deadline=1)
    await asyncio.sleep(1.1)
    await service.run_batches()
    await read_stream(service, job_id)
    return await read_stream(service, job_id)


Scenario = Callable[[StepService], Awaitable[str]]
SCENARIOS: list[Scenario] = [
    *(one_succeeded, one_failed, one_canceled, one_expired, one_deleted, one_silent, one_continued_behind_its_result),
    *(many_queued, many_running, many_succeeded, many_continued_behind_the_second_result, many_without_results),
    *(many_canceled, many_expired),
]


def file_of(scenario: Scenario) -> Path:
    return FOLDER / f"{scenario.__name__.replace('_', '-')}.txt"


def without_repetitions(text: str) -> str:
    """The masked text of a stream, with one of equal events in a row."""
    return "\n\n".join(event for event, _ in groupby(mask_text(text).split("\n\n")))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
async def test_stream_has_the_recorded_text(service: StepService, scenario: Scenario) -> None:
    assert without_repetitions(await scenario(service)) == file_of(scenario).read_text()


def test_every_file_belongs_to_a_scenario() -> None:
    assert set(FOLDER.glob("*.txt")) == {file_of(scenario) for scenario in SCENARIOS}


async def test_refused_calls_get_the_recorded_answers(service: StepService) -> None:
    job_id = await submit(service)
    for step in json.loads((FOLDER / "refused.json").read_text()):
        path = f"/v1/jobs/{step['path'].replace('<job-id>', job_id)}"
        response = await service.client.get(path, headers=step.get("headers"))
        assert (response.status_code, mask_json(response.json())) == (step["status"], step["answer"]), step
