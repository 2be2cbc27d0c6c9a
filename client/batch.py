"""Ranks the requests of a file into another file; an interrupted batch continues without loss or repetition.

An input line is a request, `{"query", "documents", ...}` with an optional `custom_id`, or a line of OpenAI's Batch
format with the request as its `body`. Output lines are in order of completion; each has the input's line number, the
`custom_id`, a key, and `ranking` or `error`. The key is a digest of the request, so that equal requests share a job.
Neither file is loaded into memory.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, cast

from client.asynchronous import AsyncClient
from client.documents import UsageError
from client.errors import ConnectionFailed, InvalidRequest, RerankError, Unauthorized
from client.records import JsonObject, Options, Request


@dataclass(frozen=True, slots=True)
class BatchLine:
    """An input line; `request` is None when it is not a valid request."""

    number: int
    custom_id: Any
    key: str
    request: Request | None


@dataclass(slots=True)
class BatchProgress:
    """Counts of input lines. Earlier runs completed `before` of them; this run completed `done`, failures included."""

    total: int
    before: int
    done: int = 0
    failed: int = 0


class Batch:
    """One input file and its output file."""

    def __init__(self, source: Path, target: Path, defaults: Options) -> None:
        """`defaults` apply to requests without these options. Raises UsageError when a file cannot be used."""
        self._source = source
        self._target = target
        self._defaults = defaults
        keys = {line.number: line.key for line in self._lines()}
        self._finished = _keep_successes(target, keys)
        self.progress = BatchProgress(total=len(keys), before=len(self._finished))

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
        with self._target.open("a", encoding="utf-8") as output:
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
                        self._write(output, line, error=_describe(outcome.error))
                    on_progress(self.progress)

    def _requests(self, output: TextIO, pending: dict[int, BatchLine]) -> Iterator[Request]:
        """Yield the remaining requests, and store the line of each by position; invalid lines are written as errors."""
        position = 0
        for line in self._lines():
            if line.number in self._finished:
                continue
            if line.request is None:
                self._write(output, line, error=_describe(_invalid_line(line)))
            else:
                pending[position] = line
                position += 1
                yield line.request

    def _lines(self) -> Iterator[BatchLine]:
        try:
            with self._source.open(encoding="utf-8") as opened:
                for number, text in enumerate(opened, start=1):
                    if text.strip():
                        yield _parse_line(number, text, self._defaults)
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read {self._source}: {error}") from error

    def _write(self, output: TextIO, line: BatchLine, **result: JsonObject) -> None:
        row = {"line": line.number, "custom_id": line.custom_id, "key": line.key, **result}
        output.write(json.dumps(row, ensure_ascii=False) + "\n")
        output.flush()
        self.progress.done += 1
        self.progress.failed += "error" in result


def _describe(error: RerankError) -> JsonObject:
    return {"type": error.code or type(error).__name__, "message": error.message, "status": error.status}


def _invalid_line(line: BatchLine) -> RerankError:
    wanted = "expected an object with query (a string) and documents (a list)"
    return InvalidRequest(f"line {line.number} is not a request: {wanted}", code="invalid_request")


def _parse_line(number: int, text: str, defaults: Options) -> BatchLine:
    try:
        data = json.loads(text)
        custom_id = data.get("custom_id")
        body = {**defaults, **data.get("body", data)}
        body.pop("custom_id", None)
        query, documents = body.pop("query"), body.pop("documents")
    except (ValueError, AttributeError, TypeError, KeyError):
        return BatchLine(number, None, "", None)
    if not isinstance(query, str) or not isinstance(documents, list):
        return BatchLine(number, custom_id, "", None)
    key = "batch-" + _digest({"query": query, "documents": documents, **body})
    return BatchLine(number, custom_id, key, Request(query, documents, cast(Options, body), key))


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:40]


def _keep_successes(target: Path, keys: Mapping[int, str]) -> set[int]:
    """The lines that an earlier run has ranked. Failed and incomplete lines are removed from the output file."""
    if not target.exists():
        return set()
    kept: set[int] = set()
    partial = target.with_name(f"{target.name}.part")
    try:
        with target.open(encoding="utf-8", errors="replace") as opened, partial.open("w", encoding="utf-8") as copy:
            for text in opened:
                row = _parse_row(text, target)
                number: int = row.get("line", 0)
                if "ranking" in row and number not in kept and keys.get(number) == row["key"]:
                    copy.write(text)
                    kept.add(number)
        os.replace(partial, target)
    except OSError as error:
        raise UsageError(f"cannot continue {target}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return kept


def _parse_row(text: str, target: Path) -> JsonObject:
    """A row of an earlier run; empty when it was cut off. Raises UsageError when the file is not a batch's output."""
    try:
        row = json.loads(text)
    except ValueError:
        if not text.endswith("\n"):
            return {}
        row = None
    if not isinstance(row, dict) or not isinstance(row.get("line"), int) or "key" not in row:
        raise UsageError(f"{target} exists and is not the output of a batch; name another file")
    return row
