"""The rows of earlier runs in an output file: which lines of the input they rank already.

Holds a position and a digest for each line, never the rows themselves.
"""

import json
from array import array
from pathlib import Path
from typing import BinaryIO

from client.batches.input_lines import BatchLine
from client.documents import UsageError
from client.records import JsonObject

_NO_ROW = -1


class EarlierRows:
    """The rankings in an output file. Error rows, and a row that was cut off, count as absent."""

    def __init__(self, target: Path) -> None:
        """Raises UsageError when the file exists and is not the output of a batch, or cannot be read."""
        self._target = target
        self._positions = array("q")
        self._keys = array("Q")
        self._opened: BinaryIO | None = None
        try:
            if target.exists():
                self._read(target)
        except OSError as error:
            raise UsageError(f"cannot continue {target}: {error}") from error

    def has(self, line: BatchLine) -> bool:
        """Whether there is a ranking for exactly this request."""
        number = line.number
        known = number < len(self._positions) and self._positions[number] != _NO_ROW
        return known and line.request is not None and self._keys[number] == _digest(line.key)

    def row(self, number: int) -> bytes:
        """The row of a line that has one, with its line break. Raises OSError."""
        if self._opened is None:
            self._opened = self._target.open("rb")
        self._opened.seek(self._positions[number])
        return self._opened.readline()

    def close(self) -> None:
        """Close the file."""
        if self._opened is not None:
            self._opened.close()

    def _read(self, target: Path) -> None:
        position = 0
        with target.open("rb") as opened:
            for text in opened:
                row = _parse_row(text, target)
                number: int = row.get("line", 0)
                if "ranking" in row and text.endswith(b"\n"):
                    self._add(number, position, str(row["key"]))
                position += len(text)

    def _add(self, number: int, position: int, key: str) -> None:
        if (missing := number + 1 - len(self._positions)) > 0:
            self._positions.extend([_NO_ROW] * missing)
            self._keys.extend([0] * missing)
        self._positions[number], self._keys[number] = position, _digest(key)


def _digest(key: str) -> int:
    """64 of a key's 160 bits; 0 for a row whose key is not this client's."""
    try:
        return int(key.removeprefix("batch-")[:16], 16)
    except ValueError:
        return 0


def _parse_row(text: bytes, target: Path) -> JsonObject:
    """A row of an earlier run; empty when it was cut off. Raises UsageError when the file is not a batch's output."""
    try:
        row = json.loads(text)
    except ValueError:
        if not text.endswith(b"\n"):
            return {}
        row = None
    if not isinstance(row, dict) or not isinstance(row.get("line"), int) or row["line"] < 0 or "key" not in row:
        raise UsageError(f"{target} exists and is not the output of a batch; name another file")
    return row
