"""Writes what one running batch produces: its progress, its segments, and its end. Holds the batch's lease.

Learns from the ledger's answers when the batch is cancelled, has expired, or belongs to another process.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from api.background_tasks import cancel_and_wait
from api.batches.average_rate import AverageRate
from api.batches.input_lines import InputLine
from api.batches.line_runner import Jobs
from api.batches.output import SegmentBuffer
from api.batches.result_rows import ResultRow, Unfinished
from api.batches.validation import InputTotals
from api.payloads.base import PayloadStore
from api.payloads.names import PayloadNames
from shared.errors import PayloadsFull, PayloadsUnavailable, StoreDamaged, StoreUnavailable
from shared.ledger.batch_ledger import Advance, BatchLedger, BatchLost, ResultFile
from shared.ledger.batch_record import (
    BatchError,
    BatchKind,
    BatchRecord,
    BatchStatus,
    FileSource,
    Segment,
    Wake,
    new_file_id,
)
from shared.ledger.job_ledger import JobLedger

T = TypeVar("T")

logger = logging.getLogger(__name__)

RENEW_SECONDS = 1.0
FULL_SECONDS = 60.0
"""How long a batch waits for room in a full payload store before it fails."""
_RETRY_SECONDS = 1.0

OnRows = Callable[[str, int], None]


class BatchWriter:
    """The writing side of one BatchRun."""

    def __init__(
        self,
        record: BatchRecord,
        token: str,
        *,
        ledger: BatchLedger,
        jobs: JobLedger,
        payloads: PayloadStore,
        names: PayloadNames,
        seconds_left: float,
        on_rows: OnRows = lambda outcome, count: None,
    ) -> None:
        """`token`: the lease's. `seconds_left`: until the batch expires. `on_rows` is called with stored rows."""
        self.stopped: Unfinished | None = None
        """Why the lines that have not ended are no longer run."""
        self.on_stop: Callable[[], None] = lambda: None
        self._record = record
        self._token = token
        self._ledger = ledger
        self._jobs = jobs
        self._payloads = payloads
        self._names = names
        self._on_rows = on_rows
        self._deadline = time.monotonic() + seconds_left
        self._started = time.monotonic()
        self._loads = dict(record.loads)
        self._lines, self._pairs = record.lines, record.pairs
        # The position up to which segments are stored, and what they hold.
        self._stored_to = record.cursor_byte
        self._ok, self._failed, self._pairs_done = record.rows_ok, record.rows_failed, record.pairs_done
        # The position behind the last row in the buffer, and the jobs of its rows.
        self._byte, self._line = record.cursor_byte, record.cursor_line
        self._row_jobs: Jobs = []
        self._undeleted: Jobs = []
        self._buffer = SegmentBuffer(self._started)
        self._storing: asyncio.Task[None] | None = None
        self._rows_seen, self._pairs_seen = record.rows_ok + record.rows_failed, record.pairs_done
        self._rate = AverageRate(self._pairs_seen)
        self._published_to = record.cursor_byte
        self._ending = False
        if record.status is BatchStatus.CANCELLING:
            self.stopped = Unfinished.CANCELLED

    def seconds_left(self) -> float:
        """The time until the batch expires."""
        return max(0.0, self._deadline - time.monotonic())

    async def renew(self) -> None:
        """Write the progress and renew the lease every second, until `end` has ended the batch. Raises BatchLost."""
        while True:
            if self.seconds_left() <= 0:
                self._stop(Unfinished.EXPIRED)
            try:
                status = await self._ledger.write(
                    self._record.id, self._token, fields=self._progress(), unpublished=self._unpublished()
                )
                if status is BatchStatus.CANCELLING:
                    self._stop(Unfinished.CANCELLED)
            except BatchLost:
                if self._ending:
                    # The end removed the lease, and its reply is still on the way.
                    return
                raise
            except StoreUnavailable as error:
                logger.debug("the progress of a batch is not written", extra={"batch": self._record.id, "error": error})
            await asyncio.sleep(RENEW_SECONDS)

    async def begin(self, totals: InputTotals) -> None:
        """Write the totals of a validated batch. Raises BatchLost."""
        self._loads, self._lines, self._pairs = dict(totals.loads), totals.lines, totals.pairs
        fields: dict[str, str | int | float] = {
            "lines": totals.lines,
            "pairs": totals.pairs,
            "loads": totals.loads_json(),
        }
        await _until_stored(
            lambda: self._ledger.write(
                self._record.id,
                self._token,
                fields=fields,
                status=BatchStatus.IN_PROGRESS,
                unpublished=self._unpublished(),
            )
        )

    def published_to(self, byte: int) -> None:
        """Note that the lines up to this position are jobs, so that the pools count them as such."""
        self._published_to = byte

    async def add(self, row: ResultRow, line: InputLine, jobs: Jobs) -> None:
        """Append the row of the next line. Raises what `store` raises."""
        if row.unfinished is not None:
            # A job expires with its batch, perhaps before `renew` has looked at the time.
            self._stop(row.unfinished)
        self._buffer.add(row)
        self._row_jobs += jobs
        self._byte, self._line = line.end, line.number
        self._rows_seen += 1
        self._pairs_seen += row.pairs
        if self._buffer.is_due():
            await self.store_if_due()

    def seconds_until_due(self) -> float:
        """When `store_if_due` has something to do, in seconds from now."""
        return self._buffer.seconds_until_due()

    def storing(self) -> "list[asyncio.Task[None]]":
        """The task that stores a segment now, if any."""
        return [self._storing] if self._storing is not None else []

    async def store_if_due(self) -> None:
        """Begin to store the buffered rows when it is time, and raise what the last storing raised."""
        if self._storing is not None and self._storing.done():
            await self._finish_storing()
        if self._buffer.is_due():
            await self._finish_storing()
            self._begin_storing()

    async def store(self) -> None:
        """Store all rows. Raises PayloadsFull or BatchLost."""
        await self._finish_storing()
        self._begin_storing()
        await self._finish_storing()

    async def _finish_storing(self) -> None:
        if self._storing is not None:
            try:
                await self._storing
            finally:
                self._storing = None

    def _begin_storing(self) -> None:
        if self._byte == self._stored_to:
            return
        buffer, jobs, self._row_jobs = self._buffer, self._row_jobs, []
        self._buffer = SegmentBuffer(self._started)
        self._storing = asyncio.create_task(self._store(buffer, jobs, self._byte, self._line))

    async def _store(self, buffer: SegmentBuffer, jobs: Jobs, byte: int, line: int) -> None:
        """Write the segment, move the cursor, and delete the jobs of its rows."""
        segment = await self._write_segment(buffer)
        self._ok, self._failed = self._ok + buffer.ok, self._failed + buffer.failed
        self._on_rows("ok", buffer.ok)
        self._on_rows("failed", buffer.failed)
        self._pairs_done += buffer.pairs
        fields: dict[str, str | int | float] = {
            "cursor_line": line,
            "rows_ok": self._ok,
            "rows_failed": self._failed,
            "pairs_done": self._pairs_done,
        }
        advance = Advance(self._stored_to, byte, segment)
        await _until_stored(lambda: self._ledger.write(self._record.id, self._token, fields=fields, advance=advance))
        self._stored_to = byte
        await self.delete_jobs(jobs)

    async def _write_segment(self, buffer: SegmentBuffer) -> Segment:
        full_since: float | None = None
        expires_at = time.time() + self.seconds_left() + self._record.retain_seconds
        while True:
            try:
                return await buffer.store(self._payloads, self._names, self._record.id, expires_at)
            except PayloadsFull:
                full_since = full_since or time.monotonic()
                if time.monotonic() - full_since > FULL_SECONDS:
                    raise
            except (PayloadsUnavailable, StoreUnavailable) as error:
                logger.warning("a segment is written later", extra={"batch": self._record.id, "error": error})
            await asyncio.sleep(_RETRY_SECONDS)

    async def end(self, status: BatchStatus, errors: Sequence[BatchError] = (), *, lines: int | None = None) -> None:
        """Write the final status, with the result files of what is stored. Raises BatchLost."""
        fields = self._progress()
        fields |= {"lines": self._lines or lines or self._rows_seen, "pairs": self._pairs or self._pairs_seen}
        # If this process is killed now, the next one must find again that the batch fails.
        finalizing = None if status is BatchStatus.FAILED else BatchStatus.FINALIZING
        await _until_stored(lambda: self._ledger.write(self._record.id, self._token, fields=fields, status=finalizing))
        await self.delete_jobs([])
        output, failed = await self._result_files()
        self._ending = True
        await _until_stored(
            lambda: self._ledger.end(
                self._record, self._token, status, output=output, errors_file=failed, errors=errors
            )
        )
        counts = {"rows": self._ok + self._failed, "failed": self._failed}
        logger.info("a batch ended", extra={"batch": self._record.id, "status": status, **counts})

    async def _result_files(self) -> tuple[ResultFile | None, ResultFile | None]:
        if self._record.kind is not BatchKind.BATCH:
            return None, None
        segments = await _until_stored(lambda: self._ledger.segments(self._record.id))
        sizes = sum(each.output_bytes for each in segments), sum(each.error_bytes for each in segments)
        output, failed = (
            ResultFile(new_file_id(), f"{self._record.id}_{source}.jsonl", size, source) if size else None
            for size, source in zip(sizes, (FileSource.OUTPUT, FileSource.ERRORS), strict=True)
        )
        return output, failed

    async def close(self) -> None:
        """Stop storing. The rows that are not stored are lost, and the next run writes them again."""
        if (storing := self._storing) is not None:
            await cancel_and_wait([storing])
            if not storing.cancelled() and (error := storing.exception()) is not None:
                logger.debug("a segment is not stored", extra={"batch": self._record.id, "error": error})

    async def delete_jobs(self, jobs: Jobs) -> None:
        """Delete jobs that are no longer needed, with those that could not be deleted before."""
        jobs, self._undeleted = self._undeleted + jobs, []
        if jobs:
            try:
                await self._jobs.delete_jobs(jobs)
            except StoreUnavailable as error:
                # Without another try, they expire.
                self._undeleted = jobs
                logger.warning("jobs are deleted later", extra={"batch": self._record.id, "error": error})

    async def was_deleted(self) -> bool:
        """Whether the batch no longer exists; False while Redis is unreachable."""
        try:
            return await self._ledger.read(self._record.id) is None
        except StoreUnavailable:
            return False

    def _stop(self, reason: Unfinished) -> None:
        if self.stopped is None:
            self.stopped = reason
            self.on_stop()

    def _progress(self) -> dict[str, str | int | float]:
        rate = self._rate.update(self._pairs_seen)
        return {"rows_seen": self._rows_seen, "pairs_seen": self._pairs_seen, "rate": f"{rate:.3f}"}

    def _unpublished(self) -> dict[str, tuple[int, int]]:
        """For each model, the share of its load that is behind the published lines."""
        if self._record.wake is Wake.WHEN_WARM or self.stopped is not None:
            return dict.fromkeys(self._loads, (0, 0))
        share = 1.0 - self._published_to / max(1, self._record.input_bytes)
        return {model: (int(pairs * share), int(tokens * share)) for model, (pairs, tokens) in self._loads.items()}


async def _until_stored(write: Callable[[], Awaitable[T]]) -> T:
    """The result of a repeatable write, which waits while Redis is unreachable."""
    while True:
        try:
            return await write()
        except StoreDamaged:
            # Waiting does not mend it.
            raise
        except StoreUnavailable:
            await asyncio.sleep(_RETRY_SECONDS)
