"""Reads the result files of a batch: the rows of the output and of the error file, in the order of the input."""

import heapq
import json
from collections.abc import Iterator
from typing import BinaryIO

from client.batch_records import RequestResult
from client.errors import UnexpectedAnswer


def read_results(output: BinaryIO, errors: BinaryIO) -> Iterator[RequestResult]:
    """The rows of both files, which are in order of their lines. Raises UnexpectedAnswer."""
    return heapq.merge(_rows(output), _rows(errors), key=lambda row: row.index)


def _rows(opened: BinaryIO) -> Iterator[RequestResult]:
    opened.seek(0)
    for text in opened:
        try:
            data = json.loads(text)
        except ValueError as error:
            raise UnexpectedAnswer(f"not a row of a batch: {text[:200]!r}") from error
        yield RequestResult.read_row(data)
