"""Writes the output file of a batch in server mode: one row for each line of the input, in order.

A row comes from the service's result files, from an earlier run, or from the line itself when it is not a request. The
files are read side by side, so that memory holds one row of each.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from client.batch_records import BatchJob, RequestResult
from client.batches.earlier_rows import EarlierRows
from client.batches.input_lines import BatchLine, InputFile, describe_error, row_text
from client.documents import UsageError
from client.errors import JobError, RerankError
from client.result_files import read_results


@dataclass(slots=True)
class Totals:
    """Counts of the rows in an output file: all of them, and those with an error."""

    total: int = 0
    failed: int = 0


def write_output(
    source: InputFile,
    target: Path,
    output: BinaryIO,
    errors: BinaryIO,
    earlier: EarlierRows,
    missing: RerankError,
) -> Totals:
    """Write the rows to `target`, which is replaced when they are complete. `missing`: for lines without any row.

    Raises UsageError or UnexpectedAnswer.
    """
    partial = target.with_name(f"{target.name}.part")
    merged = _Merge(read_results(output, errors), earlier, missing)
    try:
        with partial.open("wb") as opened:
            for line in source.lines():
                opened.write(merged.row(line))
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(partial, target)
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return merged.totals


def missing_result(batch: BatchJob) -> RerankError:
    """The error of a line that the batch has no result for."""
    if batch.errors:
        return JobError(batch.errors[0].message, code=batch.errors[0].code)
    return JobError(f"the batch {batch.id} is {batch.status} and has no result for this line", code="missing_result")


class _Merge:
    """Finds the row of one line after the other."""

    def __init__(self, results: Iterator[RequestResult], earlier: EarlierRows, missing: RerankError) -> None:
        self.totals = Totals()
        self._results = results
        self._next = next(results, None)
        self._earlier = earlier
        self._missing = missing

    def row(self, line: BatchLine) -> bytes:
        """The row of the next line. Raises OSError or UnexpectedAnswer."""
        self.totals.total += 1
        while self._next is not None and self._next.index + 1 < line.number:
            self._next = next(self._results, None)
        result = self._next
        if result is not None and result.index + 1 == line.number:
            if result.response is not None:
                return row_text(line, ranking=result.response)
            return self._failed(line, result.error or self._missing)
        if line.request is None:
            return self._failed(line, line.error)
        if self._earlier.has(line):
            return self._earlier.row(line.number)
        return self._failed(line, self._missing)

    def _failed(self, line: BatchLine, error: RerankError) -> bytes:
        self.totals.failed += 1
        return row_text(line, error=describe_error(error))
