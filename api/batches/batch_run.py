"""Runs one batch to its end: validates it, runs its lines as jobs in a window, and stores the rows in order.

Everything that must survive the process is in the ledger: another process continues from the cursor, and finds the jobs
of the lines behind it. Owns no policy about which batches run.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from api.background_tasks import cancel_and_wait
from api.batches import result_rows
from api.batches.batch_writer import BatchWriter
from api.batches.input_lines import InputLine, read_lines
from api.batches.line_requests import LineParser, LineSummary
from api.batches.line_runner import BatchTerms, Jobs, LineRunner
from api.batches.result_rows import ResultRow, Unfinished
from api.batches.validation import validate
from api.batches.window import Window
from api.payloads.base import PayloadStore
from shared.errors import ModelNotFound, PayloadMissing, PayloadsFull, PayloadsUnavailable
from shared.ledger.batch_record import BatchError, BatchRecord, BatchStatus, Wake
from shared.models import ModelRegistry

logger = logging.getLogger(__name__)

_WARM_CHECK_SECONDS = 0.5
_RETRY_SECONDS = 2.0
_LINES_PER_TURN, _BYTES_PER_TURN = 100, 128 << 10
"""Hundreds of thousands of lines may be in memory at once. Without a pause between them, no lease would be renewed."""


@dataclass(slots=True)
class _Pending:
    """A line that was submitted as a job. `model`, `size` and the summary's tokens count towards the window."""

    line: InputLine
    summary: LineSummary
    model: str | None
    size: int
    task: "asyncio.Task[ResultRow]"
    jobs: Jobs = field(default_factory=list)


class BatchRun:
    """One batch in this process, which holds its lease."""

    def __init__(
        self,
        record: BatchRecord,
        *,
        writer: BatchWriter,
        parser: LineParser,
        runner: LineRunner,
        window: Window,
        payloads: PayloadStore,
        models: ModelRegistry,
        max_line_bytes: int,
        max_lines: int,
    ) -> None:
        self._record = record
        self._writer = writer
        self._parser = parser
        self._runner = runner
        self._window = window
        self._payloads = payloads
        self._models = models
        self._max_line_bytes = max_line_bytes
        self._max_lines = max_lines
        self._terms = BatchTerms(record.id, record.owner, writer.seconds_left)
        self._pending: deque[_Pending] = deque()
        self._failed = False
        self._deleting: asyncio.Task[None] | None = None
        """Deletes the jobs of a batch that stops. Kept, because asyncio holds only a weak reference."""
        writer.on_stop = self._cancel_pending

    async def run(self) -> None:
        """Run the batch to a final status. Raises BatchLost.

        When this call is cancelled, the jobs stay for the process that continues the batch.
        """
        renewing = asyncio.create_task(self._writer.renew())
        working = asyncio.create_task(self._work())
        try:
            await asyncio.wait({renewing, working}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                # Raises why the lease is lost, unless the batch is just ending.
                renewing.result()
            await working
        finally:
            self._leave_window()
            tasks: list[asyncio.Task[Any]] = [renewing, working, *(pending.task for pending in self._pending)]
            await cancel_and_wait(tasks)
            for task in tasks:
                if not task.cancelled():
                    # Retrieve the error: another one ended the run, and asyncio would log this one.
                    task.exception()
            await self._writer.close()
            if self._failed or await self._writer.was_deleted():
                await self._writer.delete_jobs([job for pending in self._pending for job in pending.jobs])

    async def _work(self) -> None:
        try:
            if self._record.status is BatchStatus.VALIDATING and not await self._validate():
                return
            await self._run_lines()
        except PayloadsFull as error:
            await self._fail(BatchError(error.code, error.message))
        except PayloadMissing:
            await self._fail(BatchError("input_missing", "the input file no longer exists"))
        else:
            await self._writer.end(_FINAL_STATUSES[self._writer.stopped])

    async def _fail(self, error: BatchError) -> None:
        await self._writer.end(BatchStatus.FAILED, [error])
        self._failed = True

    async def _validate(self) -> bool:
        """Whether the batch can be run. Ends it otherwise."""
        lines = self._until_stopped(self._lines(0, 0))
        totals = await validate(lines, self._parser, self._models, max_lines=self._max_lines)
        if self._writer.stopped is not None:
            return True
        if totals.errors:
            await self._writer.end(BatchStatus.FAILED, totals.errors, lines=totals.lines)
            return False
        await self._writer.begin(totals)
        return True

    async def _until_stopped(self, lines: AsyncIterator[InputLine]) -> AsyncIterator[InputLine]:
        async for line in lines:
            if self._writer.stopped is not None:
                return
            yield line

    async def _lines(self, start: int, number: int) -> AsyncIterator[InputLine]:
        """The input's lines behind a position. Waits while the payload store cannot be read."""
        turn_bytes = 0
        while True:
            try:
                async for line in read_lines(
                    self._payloads, self._record.input_name, max_bytes=self._max_line_bytes, start=start, number=number
                ):
                    yield line
                    turn_bytes += line.end - start
                    start, number = line.end, line.number
                    if number % _LINES_PER_TURN == 0 or turn_bytes >= _BYTES_PER_TURN:
                        turn_bytes = 0
                        await asyncio.sleep(0)
                return
            except PayloadMissing:
                raise
            except PayloadsUnavailable:
                await asyncio.sleep(_RETRY_SECONDS)

    async def _run_lines(self) -> None:
        async for line in self._lines(self._record.cursor_byte, self._record.cursor_line):
            if (reason := self._writer.stopped) is None:
                await self._start_line(line)
                reason = self._writer.stopped
            if reason is not None and (not self._pending or self._pending[-1].line is not line):
                await self._take_all()
                await self._skip(line, reason)
            await self._take_finished()
        await self._take_all()
        await self._writer.store()

    async def _start_line(self, line: InputLine) -> None:
        """Start a line when the window has room. Returns without starting it when the batch stops meanwhile."""
        request = self._parser.parse(line)
        model = self._model_of(request.summary) if request.request is not None else None
        size = len(line.text or b"")
        while not self._window.has_room(model, size):
            await self._take_first()
        while self._record.wake is Wake.WHEN_WARM and not self._window.is_warm(model):
            await self._take_finished()
            await asyncio.sleep(_WARM_CHECK_SECONDS)
            await self._writer.store_if_due()
            if self._writer.stopped is not None:
                break
        if self._writer.stopped is not None:
            return
        jobs: Jobs = []
        task = asyncio.create_task(self._runner.run(request, self._terms, jobs))
        self._window.add(model, size, request.summary.tokens)
        self._pending.append(_Pending(line, request.summary, model, size, task, jobs))
        self._writer.published_to(line.end)

    def _model_of(self, summary: LineSummary) -> str | None:
        try:
            return self._models.resolve(summary.model).name
        except ModelNotFound:
            return None

    async def _skip(self, line: InputLine, reason: Unfinished) -> None:
        summary = self._parser.summarize(line)
        row = result_rows.unfinished(line.number, summary.custom_id, summary.pairs, self._record.id, reason)
        await self._writer.add(row, line, [])

    async def _take_finished(self) -> None:
        """Write the rows of the first lines that have ended."""
        while self._pending and self._pending[0].task.done():
            await self._take_first()

    async def _take_all(self) -> None:
        while self._pending:
            await self._take_first()

    async def _take_first(self) -> None:
        """Wait for the first line, and write its row."""
        first = self._pending[0]
        while not first.task.done():
            waiting: set[asyncio.Future[object]] = {first.task, *self._writer.storing()}  # type: ignore[arg-type]
            due = self._writer.seconds_until_due()
            await asyncio.wait(
                waiting, timeout=None if due == float("inf") else due, return_when=asyncio.FIRST_COMPLETED
            )
            await self._writer.store_if_due()
        self._pending.popleft()
        self._window.remove(first.model, first.size, first.summary.tokens)
        await self._writer.add(self._row(first), first.line, first.jobs)

    def _row(self, pending: _Pending) -> ResultRow:
        if not pending.task.cancelled():
            return pending.task.result()
        summary = pending.summary
        reason = self._writer.stopped or Unfinished.CANCELLED
        return result_rows.unfinished(pending.line.number, summary.custom_id, summary.pairs, self._record.id, reason)

    def _leave_window(self) -> None:
        """Give back what the pending lines take of the limit that all windows share."""
        for pending in self._pending:
            self._window.remove(pending.model, pending.size, pending.summary.tokens)

    def _cancel_pending(self) -> None:
        """Stop waiting for the lines that have not ended, and delete their jobs."""
        stopped = [pending for pending in self._pending if pending.task.cancel()]
        jobs = [job for pending in stopped for job in pending.jobs]
        self._deleting = asyncio.create_task(self._writer.delete_jobs(jobs))


_FINAL_STATUSES = {
    None: BatchStatus.COMPLETED,
    Unfinished.CANCELLED: BatchStatus.CANCELLED,
    Unfinished.EXPIRED: BatchStatus.EXPIRED,
}
