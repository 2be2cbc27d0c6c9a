"""Reads the lines of a batch's input from the payload store, from any position, without loading the file.

Owns where a line begins and ends. A line ends with LF or CRLF; the last one needs neither. A byte order mark at the
start of the file is ignored, and so are blank lines, which still count for line numbers.
"""

import codecs
from collections.abc import AsyncIterator
from dataclasses import dataclass

from api.payloads.base import PayloadStore


@dataclass(frozen=True, slots=True)
class InputLine:
    """One line that is not blank. `number` counts from 1; [start, end) are its bytes with the line break.

    `text` has neither the line break nor surrounding whitespace; it is None when the line is longer than allowed.
    """

    number: int
    start: int
    end: int
    text: bytes | None


async def read_lines(
    store: PayloadStore, name: str, *, max_bytes: int, start: int = 0, number: int = 0
) -> AsyncIterator[InputLine]:
    """Yield the lines from byte `start` on, which is behind line `number`.

    A line of more than `max_bytes` is not held in memory. Raises PayloadMissing or PayloadsUnavailable.
    """
    buffer = _LineBuffer(start, number, max_bytes)
    async for chunk in store.read(name, start):
        for line in buffer.add(chunk):
            yield line
    for line in buffer.close():
        yield line


class _LineBuffer:
    """Splits chunks into lines."""

    def __init__(self, start: int, number: int, max_bytes: int) -> None:
        self._at = start
        self._number = number
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []
        self._size = 0
        """Bytes of the current line so far, including those that are not held."""

    def add(self, chunk: bytes) -> list[InputLine]:
        """The lines that end in this chunk."""
        first, *rest = chunk.split(b"\n")
        if not rest:
            self._append(first)
            return []
        lines: list[InputLine] = []
        self._append(first)
        self._end_line(lines, 1)
        for text in rest[:-1]:
            self._append(text)
            self._end_line(lines, 1)
        self._append(rest[-1])
        return lines

    def close(self) -> list[InputLine]:
        """The last line, when the file does not end with a line break."""
        lines: list[InputLine] = []
        if self._size:
            self._end_line(lines, 0)
        return lines

    def _append(self, part: bytes) -> None:
        self._size += len(part)
        if part and self._size <= self._max_bytes:
            self._parts.append(part)
        elif self._size > self._max_bytes:
            self._parts.clear()

    def _end_line(self, lines: list[InputLine], line_break: int) -> None:
        start, self._at = self._at, self._at + self._size + line_break
        self._number += 1
        too_long = self._size > self._max_bytes
        text = (self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)).strip()
        self._parts.clear()
        self._size = 0
        if start == 0:
            text = text.removeprefix(codecs.BOM_UTF8).lstrip()
        if text or too_long:
            lines.append(InputLine(self._number, start, self._at, None if too_long else text))
