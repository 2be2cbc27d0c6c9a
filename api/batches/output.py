"""Collects a batch's rows in order, and stores them as segments: immutable objects with consecutive rows.

A segment exists for readers once the ledger knows it, which happens together with the cursor's move. So a process that
is killed at any moment leaves complete results up to the cursor, and perhaps an object without a reference to it.
"""

import time
from collections.abc import AsyncIterator

from api.batches.result_rows import ResultRow
from api.payloads.base import PayloadStore
from api.payloads.names import PayloadNames
from shared.ledger.batch_record import Segment

MAX_SEGMENT_BYTES = 8 << 20
MIN_SEGMENT_SECONDS, MAX_SEGMENT_SECONDS = 2.0, 60.0
SEGMENT_SHARE = 0.02
"""A segment is stored when it is older than this share of the run: few segments for long runs, early ones for all."""


class SegmentBuffer:
    """The rows behind the last stored segment."""

    def __init__(self, started: float) -> None:
        """`started`: when the run began, in `time.monotonic` seconds."""
        self._started = started
        self.clear()

    def clear(self) -> None:
        """Begin a new segment."""
        self._output: list[bytes] = []
        self._errors: list[bytes] = []
        self.output_bytes = self.error_bytes = 0
        self.pairs = 0
        self._first_at = 0.0

    @property
    def ok(self) -> int:
        """The number of rows that succeeded."""
        return len(self._output)

    @property
    def failed(self) -> int:
        return len(self._errors)

    def add(self, row: ResultRow) -> None:
        """Append the row of the next line."""
        if not self._output and not self._errors:
            self._first_at = time.monotonic()
        self.pairs += row.pairs
        if row.failed:
            self._errors.append(row.text)
            self.error_bytes += len(row.text)
        else:
            self._output.append(row.text)
            self.output_bytes += len(row.text)

    def seconds_until_due(self) -> float:
        """When the segment should be stored, in seconds from now; infinity while it is empty."""
        if not self._output and not self._errors:
            return float("inf")
        if self.output_bytes + self.error_bytes >= MAX_SEGMENT_BYTES:
            return 0.0
        now = time.monotonic()
        age = min(max((now - self._started) * SEGMENT_SHARE, MIN_SEGMENT_SECONDS), MAX_SEGMENT_SECONDS)
        return max(0.0, self._first_at + age - now)

    def is_due(self) -> bool:
        """Whether the segment should be stored now."""
        return self.seconds_until_due() <= 0

    async def store(self, payloads: PayloadStore, names: PayloadNames, batch_id: str, expires_at: float) -> Segment:
        """Write the rows to the payload store. Raises PayloadsFull, PayloadsUnavailable or StoreUnavailable."""
        name = await names.segment(batch_id)
        await payloads.write(name, _chunks([*self._output, *self._errors]), expires_at=expires_at)
        return Segment(name, self.ok + self.failed, self.output_bytes, self.error_bytes)


async def _chunks(rows: list[bytes]) -> AsyncIterator[bytes]:
    for row in rows:
        yield row
