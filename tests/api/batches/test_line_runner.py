"""One line as a job: its row, and what is tried again."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import redis.asyncio

from api.batches.input_lines import InputLine
from api.batches.line_requests import LineParser
from api.batches.line_runner import BatchTerms, Jobs, LineRunner
from api.batches.result_rows import ResultRow
from api.dialects.registry import SUPERSET
from api.jobs.admission import Admission, AdmissionLimits
from api.jobs.completions import CompletionListener
from api.jobs.service import RerankService
from api.jobs.submissions import Limits, SubmissionBuilder
from api.pool_monitor import PoolMonitor
from shared.contracts import WorkClass
from shared.keys import job_keys, pool_keys
from shared.ledger.job_index import JobIndex
from shared.ledger.job_ledger import JobLedger
from shared.ledger.job_record import JobFailure
from shared.ledger.worker_ledger import WorkerLedger
from shared.models import ModelRegistry, ModelSpec
from shared.queue.celery_app import make_celery
from shared.queue.messages import MessageBuilder
from tests.api.batches.support import wait_until
from tests.api.conftest import cancel_other_tasks
from tests.api.support import Worker
from tests.shared.support import MODEL, OWNER, StoreView, make_lease, make_scores, make_submission, read_record

BATCH = "batch_1"
JOB = f"{BATCH}.3"
BODY = {"query": "q", "documents": ["one", "two"]}
TERMS = BatchTerms(BATCH, OWNER, lambda: 60.0)
LIMITS = Limits(
    max_documents=3,
    wait_seconds=10.0,
    job_deadline_seconds=60.0,
    shard_tokens=16_384,
    batch_window=32,
    max_windows=50_000,
)


class Lines:
    """Runs lines of one batch."""

    def __init__(self, runner: LineRunner) -> None:
        self.runner = runner
        self.jobs: Jobs = []

    async def run(self, body: Any, number: int = 3) -> ResultRow:
        """The row of a line with this body."""
        text = json.dumps({"custom_id": "mine", "body": body}).encode()
        line = LineParser("/v1/rerank", None, SUPERSET, 1000).parse(InputLine(number, 0, 10, text))
        async with asyncio.timeout(15):
            return await self.runner.run(line, TERMS, self.jobs if number == 3 else [])


@pytest.fixture
def poll_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs that have ended before they are awaited, and lost ones, are found soon."""
    monkeypatch.setattr("api.jobs.completions.POLL_SECONDS", 0.05)


@pytest.fixture
async def completions(async_client: redis.asyncio.Redis, ledger: JobLedger) -> AsyncIterator[CompletionListener]:
    """A running and subscribed listener to the ends of lines."""
    listener = CompletionListener(async_client, ledger)
    running = asyncio.create_task(listener.run())
    await wait_until(lambda: async_client.pubsub_channels(job_keys.job_ended_channel(ledger.listener)))
    yield listener
    await cancel_other_tasks()
    assert running.done()


@pytest.fixture
def admission_limits() -> AdmissionLimits:
    return AdmissionLimits(max_pending_tokens=10**9, max_pending_jobs=10**6, max_waiting=100)


@pytest.fixture
def lines(
    ledger: JobLedger,
    completions: CompletionListener,
    redis_url: str,
    async_client: Any,
    admission_limits: AdmissionLimits,
    monkeypatch: pytest.MonkeyPatch,
) -> Lines:
    monkeypatch.setattr("api.batches.line_runner.FIRST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr("api.batches.line_runner.LONGEST_PAUSE_SECONDS", 0.05)
    specs = [ModelSpec(name=MODEL), ModelSpec(name="broken")]
    pools = PoolMonitor(async_client, specs)
    submissions = SubmissionBuilder(
        pools=pools,
        models=ModelRegistry(specs),
        messages=MessageBuilder(make_celery(redis_url)),
        limits=LIMITS,
        admission=Admission(pools, admission_limits),
    )
    service = RerankService(
        ledger=ledger, index=JobIndex(async_client), completions=completions, submissions=submissions
    )
    return Lines(LineRunner(ledger, completions, submissions, service))


@pytest.fixture
def worker(redis_url: str) -> Worker:
    return Worker(redis_url, make_scores(0.25, 0.75))


def read(row: ResultRow) -> dict[str, Any]:
    assert row.text.endswith(b"\n")
    assert row.text.count(b"\n") == 1
    found: dict[str, Any] = json.loads(row.text)
    return found


async def test_ranked_line(lines: Lines, worker: Worker) -> None:
    async with asyncio.timeout(0.8):
        # Without a notification, it would take a second.
        row, _ = await asyncio.gather(lines.run(BODY), worker.process_one())
    found = read(row)
    assert (row.failed, row.pairs, row.unfinished) == (False, 2, None)
    assert (found["id"], found["custom_id"], found["line"], found["error"]) == ("batch_req_1_3", "mine", 3, None)
    assert (found["response"]["status_code"], found["response"]["request_id"]) == (200, JOB)
    assert [each["index"] for each in found["response"]["body"]["results"]] == [1, 0]
    assert lines.jobs == [(JOB, MODEL)]


async def test_jobs_of_lines_are_batch_work_and_in_no_list(lines: Lines, worker: Worker, ledger: JobLedger) -> None:
    running = asyncio.create_task(lines.run(BODY))
    await wait_until(lambda: ledger.read(JOB))
    record = await read_record(ledger, JOB)
    assert (record.work_class, record.owner) == ("batch", OWNER)
    await worker.process_one()
    await running


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({"documents": ["one"]}, 400, "invalid_request", "query"),
        (BODY | {"documents": ["x"] * 4}, 400, "too_many_documents", "documents"),
        (BODY | {"model": "unknown"}, 404, "model_not_found", "model"),
        ("no object", 400, "invalid_request", "body"),
    ],
)
async def test_rejected_line_has_the_answer_that_a_call_gets(
    lines: Lines, body: Any, status: int, code: str, param: str
) -> None:
    row = await lines.run(body)
    found = read(row)
    assert row.failed
    assert found["response"]["status_code"] == status
    assert found["response"]["body"]["error"]["type"] == code
    assert (found["error"]["code"], found["error"]["param"], found["custom_id"]) == (code, param, "mine")
    assert lines.jobs == []


async def test_failed_job(lines: Lines, redis_url: str) -> None:
    worker = Worker(redis_url, JobFailure("scoring_failed", "the engine failed"))
    row, _ = await asyncio.gather(lines.run(BODY), worker.process_one())
    assert (row.failed, read(row)["error"]["message"]) == (True, "the engine failed")


async def test_line_with_a_text_that_is_too_long(lines: Lines, redis_url: str) -> None:
    worker = Worker(redis_url, JobFailure("text_too_long", "too long", "documents[1]", 600, 512))
    row, _ = await asyncio.gather(lines.run(BODY | {"truncate": "NONE"}), worker.process_one())
    found = read(row)
    assert (row.failed, found["response"]["status_code"]) == (True, 400)
    assert found["error"] == {"code": "text_too_long", "message": "too long", "param": "documents[1]"}


async def test_expired_job_is_an_unfinished_line(lines: Lines, ledger: JobLedger, store: StoreView) -> None:
    running = asyncio.create_task(lines.run(BODY))
    await wait_until(lambda: ledger.read(JOB))
    store.pass_deadline(JOB)
    assert await ledger.expire(MODEL) == 1
    row = await running
    assert (row.unfinished, read(row)["response"], read(row)["error"]["code"]) == (
        "batch_expired",
        None,
        "batch_expired",
    )


@pytest.mark.usefixtures("poll_often")
async def test_second_run_finds_the_job_of_the_first(lines: Lines, worker: Worker, store: StoreView) -> None:
    first = asyncio.create_task(lines.run(BODY))
    await wait_until(store.outstanding)
    first.cancel()
    await asyncio.wait([first])
    second = asyncio.create_task(lines.run(BODY))
    await worker.process_one()
    row = await second
    assert not row.failed
    assert await asyncio.wait_for(lines.run(BODY), 5) == row
    assert store.outstanding() == []


@pytest.mark.usefixtures("poll_often")
async def test_lost_job_is_submitted_again(lines: Lines, worker: Worker, ledger: JobLedger, redis_client: Any) -> None:
    running = asyncio.create_task(lines.run(BODY))
    await wait_until(lambda: ledger.read(JOB))
    redis_client.flushdb()
    await worker.process_one()
    assert not (await running).failed


@pytest.mark.usefixtures("poll_often")
async def test_job_that_is_lost_again_and_again_fails_its_line(
    lines: Lines, ledger: JobLedger, redis_client: Any
) -> None:
    running = asyncio.create_task(lines.run(BODY))
    while not running.done():
        redis_client.flushdb()
        await asyncio.sleep(0.01)
    row = await running
    assert (row.failed, read(row)["error"]["code"]) == (True, "job_not_found")


@pytest.mark.usefixtures("poll_often")
async def test_results_of_many_lines_are_read_with_few_connections(
    lines: Lines, ledger: JobLedger, async_client: Any, redis_client: Any
) -> None:
    """They end together when a run continues one whose lines have ended meanwhile."""
    count = 300
    running = [asyncio.create_task(lines.run(BODY, number)) for number in range(count)]
    await wait_until(lambda: redis_client.zcard(pool_keys.outstanding(MODEL)) == count)
    for task in running:
        task.cancel()
    await asyncio.wait(running)
    worker = WorkerLedger(redis_client, MODEL)
    for number in range(count):
        lease = make_lease(job_id=f"{BATCH}.{number}")
        worker.claim(lease)
        worker.finish(lease, make_scores(), WorkClass.BATCH)
    rows = await asyncio.gather(*(lines.run(BODY, number) for number in range(count)))
    assert not any(row.failed for row in rows)
    pool = async_client.connection_pool
    assert len(pool._available_connections) + len(pool._in_use_connections) < 60


class TestFallbacks:
    async def test_next_model_is_tried(self, lines: Lines, worker: Worker, redis_url: str) -> None:
        body = BODY | {"model": "unknown", "fallbacks": [MODEL]}
        row, _ = await asyncio.gather(lines.run(body), worker.process_one())
        assert not row.failed
        assert lines.jobs == [(f"{JOB}.1", MODEL)]


class TestAdmission:
    @pytest.fixture
    def admission_limits(self) -> AdmissionLimits:
        return AdmissionLimits(max_pending_tokens=10**9, max_pending_jobs=1, max_waiting=100)

    async def test_line_waits_for_room(self, lines: Lines, worker: Worker, ledger: JobLedger) -> None:
        await ledger.submit(replace(make_submission("job-1"), messages=[]))
        running = asyncio.create_task(lines.run(BODY))
        await asyncio.sleep(0.2)
        assert await ledger.read(JOB) is None
        await ledger.delete(await read_record(ledger, "job-1"))
        await worker.process_one()
        assert not (await running).failed
