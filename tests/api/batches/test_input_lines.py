"""Where lines begin and end, however the bytes arrive."""

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.batches.input_lines import InputLine, read_lines
from api.payloads.folder import FolderStore
from tests.api.payloads.support import MIB, memory_limit, repeated, write
from tests.shared.support import properties

BOM = b"\xef\xbb\xbf"


class Chunks:
    """A payload store with one object, which arrives in pieces of the given sizes, over and over."""

    def __init__(self, content: bytes, sizes: list[int]) -> None:
        self._content = content
        self._sizes = sizes

    async def read(self, name: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        position = 0
        while start < len(self._content):
            size = self._sizes[position % len(self._sizes)]
            yield self._content[start : start + size]
            start, position = start + size, position + 1


async def lines_of(
    content: bytes, *, sizes: list[int] | None = None, start: int = 0, number: int = 0, max_bytes: int = 1000
) -> list[InputLine]:
    store: Any = Chunks(content, sizes or [1000])
    return [line async for line in read_lines(store, "input", max_bytes=max_bytes, start=start, number=number)]


async def texts_of(content: bytes, **options: Any) -> list[tuple[int, bytes | None]]:
    return [(line.number, line.text) for line in await lines_of(content, **options)]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", []),
        (b"\n", []),
        (b"a\nb\n", [(1, b"a"), (2, b"b")]),
        (b"a\nb", [(1, b"a"), (2, b"b")]),
        (b"a\r\nb\r\n", [(1, b"a"), (2, b"b")]),
        (b"a\r\nb\r", [(1, b"a"), (2, b"b")]),
        (b"a\rb\n", [(1, b"a\rb")]),
        (BOM + b"a\nb\n", [(1, b"a"), (2, b"b")]),
        (BOM + b" \na", [(2, b"a")]),
        (BOM, []),
        (b"a\n" + BOM + b"b\n", [(1, b"a"), (2, BOM + b"b")]),
        (b"\n\r\n  \t\na\n\n", [(4, b"a")]),
        (b"  a  \n", [(1, b"a")]),
        (b"\xff\xfe\nb\xc3\n", [(1, b"\xff\xfe"), (2, b"b\xc3")]),
        (b"a\x00b\n\x00\n", [(1, b"a\x00b"), (2, b"\x00")]),
        ("x\u2028y\u0085z\n".encode(), [(1, "x\u2028y\u0085z".encode())]),
    ],
)
async def test_lines(content: bytes, expected: list[tuple[int, bytes]]) -> None:
    for size in (1, 2, 3, 1000):
        assert await texts_of(content, sizes=[size]) == expected


async def test_positions_are_those_of_the_file() -> None:
    content = BOM + b"a\r\n\n bc \nd"
    lines = await lines_of(content)
    assert [content[line.start : line.end] for line in lines] == [BOM + b"a\r\n", b" bc \n", b"d"]


@pytest.mark.parametrize("size", [1, 4, 1000])
async def test_line_over_the_limit_has_no_text_and_the_next_one_does(size: int) -> None:
    content = b"x" * 11 + b"\n" + b"y" * 10 + b"\n" + b" " * 11 + b"\nz"
    expected = [(1, None), (2, b"y" * 10), (3, None), (4, b"z")]
    assert await texts_of(content, sizes=[size], max_bytes=10) == expected
    lines = await lines_of(content, sizes=[size], max_bytes=10)
    assert [(line.start, line.end) for line in lines] == [(0, 12), (12, 23), (23, 35), (35, 36)]


@properties
@given(st.data())
async def test_reading_from_the_end_of_any_line_gives_the_remaining_lines(data: st.DataObject) -> None:
    pieces = st.sampled_from([b"\n", b"\r\n", b"a", b" ", b"longer", b"\xff", BOM])
    content = b"".join(data.draw(st.lists(pieces, max_size=30)))
    sizes = st.lists(st.integers(1, 9), min_size=1, max_size=5)
    lines = await lines_of(content, sizes=data.draw(sizes), max_bytes=8)
    assert await lines_of(content, max_bytes=8) == lines
    if not lines:
        return
    cut = data.draw(st.integers(0, len(lines) - 1))
    behind = lines[cut]
    rest = await lines_of(content, sizes=data.draw(sizes), start=behind.end, number=behind.number, max_bytes=8)
    assert rest == lines[cut + 1 :]


@properties
@given(st.binary(max_size=60), st.lists(st.integers(1, 7), min_size=1, max_size=4))
async def test_lines_are_those_that_python_finds(content: bytes, sizes: list[int]) -> None:
    stripped = [line.strip() for line in content.removeprefix(BOM).split(b"\n")]
    expected = [(number, text) for number, text in enumerate(stripped, 1) if text]
    assert await texts_of(content, sizes=sizes) == expected


class TestSize:
    @pytest.fixture
    def store(self, tmp_path: Any) -> FolderStore:
        return FolderStore(tmp_path)

    async def test_a_million_blank_lines_are_read_quickly_and_not_held(self, store: FolderStore) -> None:
        await write(store, "input", b"\n" * 1_000_000 + b"{}", MIB)
        started = time.monotonic()
        lines = [line async for line in read_lines(store, "input", max_bytes=100)]
        assert [(line.number, line.text) for line in lines] == [(1_000_001, b"{}")]
        assert time.monotonic() - started < 10
        # Without a second measurement of the time: tracing the memory makes it three times as long.
        with memory_limit(24 * MIB):
            assert [line async for line in read_lines(store, "input", max_bytes=100)] == lines

    async def test_line_that_is_too_long_is_not_held(self, store: FolderStore) -> None:
        async def content() -> AsyncIterator[bytes]:
            async for chunk in repeated(b"x" * MIB, 50):
                yield chunk
            yield b"\n{}\n"

        await store.write("input", content(), expires_at=0)
        with memory_limit(8 * MIB):
            lines = [line async for line in read_lines(store, "input", max_bytes=2 * MIB)]
        assert [(line.number, line.text) for line in lines] == [(1, None), (2, b"{}")]
        assert lines[0].end == 50 * MIB + 1
