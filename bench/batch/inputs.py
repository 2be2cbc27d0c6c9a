"""Writes the inputs of the batches, each once, and checks their outputs row by row.

All texts of an input are distinct, so that neither the score cache nor repeated documents save work.
"""

import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.generator import MeasurementFailed
from bench.words import Words

DOCUMENT_WORDS = 20
_LINE = b'{"custom_id":"%b","method":"POST","url":"/v1/rerank","body":{"query":"%b","documents":["%b"]}}\n'
_BUFFER_BYTES = 1 << 20

VOCABULARY = ["".join(letters) for letters in itertools.product("bdfklmst", "aeio", "bcdfghklmnprstvz", "aeio")]
"""2,048 words of four letters: with the space about as long as a token and a quarter of English."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of an input: one request per line, with `documents` documents of DOCUMENT_WORDS words."""

    lines: int
    documents: int

    @property
    def pairs(self) -> int:
        return self.lines * self.documents


class Inputs:
    """The inputs of a run, in `folder`. The same vocabulary and seed give the same bytes."""

    def __init__(self, folder: Path, vocabulary: Sequence[str] = VOCABULARY, seed: int = 1) -> None:
        self._folder = folder
        self.words = Words(list(vocabulary), seed)

    def path(self, shape: Shape) -> Path:
        """The file of this shape; the first call writes it."""
        path = self._folder / f"{shape.lines}x{shape.documents}.jsonl"
        if not path.exists():
            with path.open("wb", buffering=_BUFFER_BYTES) as file:
                file.writelines(self._line(number, shape.documents) for number in range(1, shape.lines + 1))
        return path

    def first_lines(self, shape: Shape, lines: int) -> Path:
        """A file with the first lines of another one."""
        path = self._folder / f"first-{lines}-of-{shape.lines}x{shape.documents}.jsonl"
        with self.path(shape).open("rb") as source, path.open("wb") as file:
            file.writelines(itertools.islice(source, lines))
        return path

    def request(self, serial: int, documents: int) -> bytes:
        """The body of a request with new texts; `serial` must be larger than the number of any line."""
        texts = self.words.documents(serial, documents, DOCUMENT_WORDS)
        return b'{"query":"%b","documents":["%b"]}' % (self.words.query(serial), b'","'.join(texts))

    def _line(self, number: int, documents: int) -> bytes:
        texts = self.words.documents(number, documents, DOCUMENT_WORDS)
        return _LINE % (custom_id(number).encode(), self.words.query(number), b'","'.join(texts))


def custom_id(line: int) -> str:
    """The custom_id of a line, counted from 1."""
    return f"request-{line}"


def check_rows(rows: Iterable[bytes], shape: Shape) -> None:
    """Read an output file: all rows, in the order of the input, each with all documents ranked.

    Raises MeasurementFailed for the first wrong row.
    """
    expected = set(range(shape.documents))
    count = 0
    for count, text in enumerate(rows, start=1):
        row = json.loads(text)
        if row["custom_id"] != custom_id(count):
            raise MeasurementFailed(f"row {count} has the custom_id {row['custom_id']!r}, not {custom_id(count)!r}")
        if row["error"] is not None or row["response"]["status_code"] != 200:
            raise MeasurementFailed(f"row {count} has failed: {text[:300]!r}")
        results = row["response"]["body"]["results"]
        if len(results) != shape.documents or {result["index"] for result in results} != expected:
            raise MeasurementFailed(f"row {count} does not rank {shape.documents} documents: {text[:300]!r}")
    if count != shape.lines:
        raise MeasurementFailed(f"the output has {count:,} rows, not {shape.lines:,}")


def check_client_rows(rows: Iterable[bytes], lines: int) -> None:
    """Read an output file of the client's own batch mode: each line once, and ranked. Raises MeasurementFailed."""
    found = [row for text in rows if "ranking" in (row := json.loads(text))]
    if sorted(row["line"] for row in found) != list(range(1, lines + 1)):
        raise MeasurementFailed(f"the client ranked {len(found):,} of {lines:,} lines")
