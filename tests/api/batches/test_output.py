"""When a segment is stored, and what it holds."""

import time
from typing import Any

import pytest

from api.batches.output import MAX_SEGMENT_BYTES, MAX_SEGMENT_SECONDS, MIN_SEGMENT_SECONDS, SegmentBuffer
from api.batches.result_rows import ResultRow
from tests.api.batches.support import Bench
from tests.api.payloads.support import in_an_hour, read


def row(text: bytes, *, failed: bool = False, pairs: int = 1) -> ResultRow:
    return ResultRow(text, failed, pairs)


def buffer_since(seconds: float) -> SegmentBuffer:
    """A buffer of a run that began this long ago."""
    return SegmentBuffer(time.monotonic() - seconds)


async def test_rows_that_succeeded_come_first(bench: Bench) -> None:
    buffer = buffer_since(0)
    for text, failed in ((b"1\n", False), (b"bad 2\n", True), (b"3\n", False), (b"bad 4\n", True)):
        buffer.add(row(text, failed=failed, pairs=3))
    segment = await buffer.store(bench.payloads, bench.names, "batch_1", in_an_hour())
    assert (segment.rows, segment.output_bytes, segment.error_bytes, buffer.pairs) == (4, 4, 12, 12)
    assert await read(bench.payloads, segment.name) == b"1\n3\nbad 2\nbad 4\n"


async def test_each_segment_has_a_name_of_its_own(bench: Bench) -> None:
    buffer = buffer_since(0)
    buffer.add(row(b"1\n"))
    first, second = [await buffer.store(bench.payloads, bench.names, "batch_1", in_an_hour()) for _ in range(2)]
    assert first.name != second.name


def test_empty_buffer_is_never_due() -> None:
    buffer = buffer_since(10_000)
    assert (buffer.seconds_until_due(), buffer.is_due()) == (float("inf"), False)


def test_large_buffer_is_due_at_once() -> None:
    buffer = buffer_since(0)
    buffer.add(row(b"x" * (MAX_SEGMENT_BYTES // 2)))
    assert not buffer.is_due()
    buffer.add(row(b"x" * (MAX_SEGMENT_BYTES // 2), failed=True))
    assert buffer.is_due()


@pytest.mark.parametrize(
    ("run_seconds", "seconds"), [(0, MIN_SEGMENT_SECONDS), (1000, 20), (1_000_000, MAX_SEGMENT_SECONDS)]
)
def test_segments_of_longer_runs_are_stored_less_often(run_seconds: float, seconds: float, monkeypatch: Any) -> None:
    buffer = buffer_since(run_seconds)
    buffer.add(row(b"1\n"))
    assert buffer.seconds_until_due() == pytest.approx(seconds, abs=0.5)
    later = time.monotonic() + seconds + 1
    monkeypatch.setattr("api.batches.output.time.monotonic", lambda: later)
    buffer.add(row(b"2\n"))
    assert buffer.is_due()
