"""Runs one batch against a real Redis and a folder, with lines that the test answers instead of workers."""

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any

import redis.asyncio

from api.batches import result_rows
from api.batches.batch_run import BatchRun
from api.batches.batch_writer import BatchWriter
from api.batches.line_requests import LineParser, LineRequest
from api.batches.line_runner import BatchTerms, Jobs
from api.batches.result_rows import ResultRow
from api.batches.results import ResultReader
from api.batches.window import SharedBytes, Window
from api.dialects.registry import SUPERSET
from api.files.service import FileLimits, FileService
from api.payloads.base import PayloadStore
from api.payloads.names import PayloadNames
from api.pool_monitor import PoolMonitor
from shared.keys import batch_keys
from shared.ledger.batch_ledger import BatchLedger
from shared.ledger.batch_record import BatchRecord, line_job_id
from shared.ledger.file_ledger import FileLedger
from shared.ledger.job_ledger import JobLedger
from shared.models import ModelRegistry, ModelSpec
from tests.api.payloads.support import in_an_hour
from tests.shared.ledger import batches as ledger_batches
from tests.shared.ledger.batches import BATCH, make_batch
from tests.shared.support import MODEL, OWNER, make_submission

REGISTRY = ModelRegistry([ModelSpec(name=MODEL)])


def good_line(number: int, **fields: Any) -> bytes:
    return json.dumps({"custom_id": f"r{number}", "query": "q", "documents": ["one", "two"]} | fields).encode()


def lines_as_file(lines: Sequence[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


class StubLines:
    """Stands in for LineRunner: a line's row has its number, after `answer` has returned.

    Lines whose number is in `failing` fail. `started` are the lines that were run, in order.
    """

    def __init__(self, answer: Callable[[int], Awaitable[object]] | None = None, failing: Sequence[int] = ()) -> None:
        self.started: list[int] = []
        self._answer = answer
        self._failing = failing

    async def run(self, line: LineRequest, batch: BatchTerms, jobs: Jobs) -> ResultRow:
        if line.request is None:
            assert line.error is not None
            return result_rows.failed(line, line.error, batch.batch_id)
        self.started.append(line.number)
        if self._answer is not None:
            await self._answer(line.number)
        failed = line.number in self._failing
        row = {
            "line": line.number,
            "custom_id": line.summary.custom_id,
            "response": {"body": {"results": [line.number]}},
            "error": {"code": "x", "message": "no", "param": None} if failed else None,
        }
        return ResultRow(json.dumps(row).encode() + b"\n", failed, line.summary.pairs)


class LinesWithJobs(StubLines):
    """Submits a job for each line; no worker scores it. `submitted` decides when the line ends."""

    def __init__(self, jobs: JobLedger, submitted: Callable[[str], Awaitable[object]]) -> None:
        super().__init__()
        self._jobs = jobs
        self._submitted = submitted

    async def run(self, line: LineRequest, batch: BatchTerms, jobs: Jobs) -> ResultRow:
        submission = make_submission(line_job_id(batch.batch_id, line.number))
        jobs.append((submission.job_id, submission.model))
        await self._jobs.submit(submission)
        await self._submitted(submission.job_id)
        return await super().run(line, batch, jobs)


class Killer:
    """Cancels a task at its `at`-th await point, counted from 1. Later points of the task never return."""

    def __init__(self, at: int = 0) -> None:
        self.points = 0
        self.task: asyncio.Task[None] | None = None
        self._at = at

    async def point(self) -> None:
        self.points += 1
        if self._at and self.points >= self._at:
            assert self.task is not None
            self.task.cancel()
            await asyncio.sleep(60)

    def wrap(self, target: Any) -> Any:
        """The target, with an await point before and after each call of its coroutine methods."""
        return _Wrapped(target, self)


class _Wrapped:
    def __init__(self, target: Any, killer: Killer) -> None:
        self._target = target
        self._killer = killer

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._target, name)
        if not inspect.iscoroutinefunction(method):
            return method

        async def call(*args: Any, **options: Any) -> Any:
            await self._killer.point()
            result = await method(*args, **options)
            await self._killer.point()
            return result

        return call


@dataclass
class Bench:
    """The parts that a run needs, and what tests ask afterwards."""

    client: redis.asyncio.Redis
    jobs: JobLedger
    payloads: PayloadStore
    names: PayloadNames = field(init=False)
    batches: BatchLedger = field(init=False)
    files: FileService = field(init=False)
    pools: PoolMonitor = field(init=False)

    def __post_init__(self) -> None:
        self.names = PayloadNames(self.client)
        self.batches = BatchLedger(self.client, [MODEL])
        file_ledger = FileLedger(self.client)
        self.files = FileService(file_ledger, self.batches, self.payloads, self.names, FileLimits(10**9, 600))
        self.pools = PoolMonitor(self.client, REGISTRY.specs)

    async def create(
        self, content: bytes, *, batch_id: str = BATCH, seconds: float = 3600.0, **fields: Any
    ) -> BatchRecord:
        """Create a batch with this input."""
        name = await self.names.batch_input(batch_id)

        async def chunks() -> AsyncIterator[bytes]:
            yield content

        await self.payloads.write(name, chunks(), expires_at=in_an_hour())
        record = make_batch(batch_id, input_name=name, input_bytes=len(content), **fields)
        return await ledger_batches.create(self.batches, record, seconds=seconds)

    async def read(self, batch_id: str = BATCH) -> BatchRecord:
        return await ledger_batches.read(self.batches, batch_id)

    async def start(
        self,
        lines: Any,
        *,
        killer: Killer | None = None,
        payloads: Any = None,
        batch_id: str = BATCH,
        max_lines: int = 1000,
    ) -> "asyncio.Task[None]":
        """Begin to run the batch. Takes it from another runner, as if that one had been killed."""
        token = token_hex(4)
        await self.client.delete(batch_keys.runner(batch_id))
        assert await self.batches.acquire(batch_id, token)
        record = await self.read(batch_id)
        killer = killer or Killer()
        payloads = killer.wrap(payloads or self.payloads)
        writer = BatchWriter(
            record,
            token,
            ledger=killer.wrap(self.batches),
            jobs=killer.wrap(self.jobs),
            payloads=payloads,
            names=self.names,
            seconds_left=await self.batches.seconds_left(record),
        )
        run = BatchRun(
            record,
            writer=writer,
            parser=LineParser(record.endpoint, record.defaults, SUPERSET, 10_000),
            runner=killer.wrap(lines),
            window=Window(self.pools, 100, SharedBytes()),
            payloads=payloads,
            models=REGISTRY,
            max_line_bytes=10_000,
            max_lines=max_lines,
        )
        killer.task = asyncio.create_task(run.run())
        return killer.task

    async def run(self, lines: Any = None, **options: Any) -> BatchRecord:
        """Run the batch to its end."""
        task = await self.start(lines or StubLines(), **options)
        async with asyncio.timeout(20):
            await task
        return await self.read(options.get("batch_id", BATCH))

    async def rows(self, batch_id: str = BATCH) -> list[dict[str, Any]]:
        """The rows that readers see, in the order of the input."""
        reader = ResultReader(self.batches, self.payloads)
        return [row async for row in reader.rows(batch_id, 0)]

    async def content(self, file_id: str | None) -> list[dict[str, Any]]:
        """The rows of a result file; none without a file. The file has the size that its record names."""
        if file_id is None:
            return []
        file = await self.files.read(file_id, OWNER)
        text = b"".join([chunk async for chunk in self.files.content(file)])
        assert len(text) == file.size
        return [json.loads(line) for line in text.splitlines()]


async def wait_until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until the condition, which may be a coroutine function, returns something true."""
    for _ in range(int(100 * seconds)):
        value = condition()
        if await value if inspect.isawaitable(value) else value:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the condition was not met")
