"""Client mode: this process submits each line as a job, and writes rows in order of their completion.

An interrupted run continues without loss or repetition. Equal requests share a job, because the key of a line is the
idempotency key of its job.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from client.asynchronous import AsyncClient
from client.batches.earlier_rows import EarlierRows
from client.batches.input_lines import BatchLine, InputFile, describe_error, row_text
from client.documents import UsageError
from client.errors import ConnectionFailed, Unauthorized
from client.records import JsonObject, Request


@dataclass(slots=True)
class BatchProgress:
    """Counts of input lines. Earlier runs completed `before` of them; this run completed `done`, failures included."""

    total: int
    before: int
    done: int = 0
    failed: int = 0


class ClientBatch:
    """One input file and its output file."""

    def __init__(self, source: InputFile, target: Path) -> None:
        """Raises UsageError when a file cannot be used."""
        self._source = source
        self._target = target
        self._finished, total = _keep_rankings(source, target)
        self.progress = BatchProgress(total=total, before=len(self._finished))

    async def run(
        self,
        client: AsyncClient,
        *,
        concurrency: int,
        timeout_seconds: float,
        on_progress: Callable[[BatchProgress], None],
    ) -> None:
        """Rank the remaining lines. Raises Unauthorized and ConnectionFailed, which would fail all other lines."""
        pending: dict[int, BatchLine] = {}
        with self._target.open("ab") as output:
            on_progress(self.progress)
            requests = self._requests(output, pending)
            outcomes = client.rerank_many(requests, concurrency=concurrency, timeout_seconds=timeout_seconds)
            async with aclosing(outcomes):
                async for outcome in outcomes:
                    line = pending.pop(outcome.position)
                    if isinstance(outcome.error, Unauthorized | ConnectionFailed):
                        raise outcome.error
                    if outcome.ranking is not None:
                        self._write(output, line, ranking=outcome.ranking.raw)
                    elif outcome.error is not None:
                        self._write(output, line, error=describe_error(outcome.error))
                    on_progress(self.progress)

    def _requests(self, output: BinaryIO, pending: dict[int, BatchLine]) -> Iterator[Request]:
        """Yield the remaining requests, and store the line of each by position; invalid lines are written as errors."""
        position = 0
        for line in self._source.lines():
            if line.number in self._finished:
                continue
            if line.request is None:
                self._write(output, line, error=describe_error(line.error))
            else:
                pending[position] = line
                position += 1
                yield line.request

    def _write(self, output: BinaryIO, line: BatchLine, **result: JsonObject) -> None:
        output.write(row_text(line, **result))
        output.flush()
        self.progress.done += 1
        self.progress.failed += "error" in result


def _keep_rankings(source: InputFile, target: Path) -> tuple[set[int], int]:
    """The lines that an earlier run has ranked, and the number of all lines.

    Failed, incomplete and outdated rows are removed from the output file. Raises UsageError.
    """
    earlier = EarlierRows(target)
    kept: set[int] = set()
    total = 0
    partial = target.with_name(f"{target.name}.part")
    try:
        with partial.open("wb") as copy:
            for line in source.lines():
                total += 1
                if earlier.has(line):
                    copy.write(earlier.row(line.number))
                    kept.add(line.number)
        if target.exists():
            os.replace(partial, target)
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error}") from error
    finally:
        earlier.close()
        partial.unlink(missing_ok=True)
    return kept, total
