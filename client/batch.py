"""Many requests from a file into a file, so that nothing is lost or done twice by an interruption.

A line in is a request: `{"query", "documents", ...}` with an optional `custom_id`, or a line of OpenAI's Batch format
with the request as its `body`. A line out has its number, its `custom_id`, its key, and `ranking` or `error`, in the
order in which they are done. The key is made of the request: the same line is the same job, whoever sends it again.
Neither file is held in memory.
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
    """A line of the input; `request` None when it is none."""

    number: int
    custom_id: Any
    key: str
    request: Request | None


@dataclass(slots=True)
class BatchProgress:
    """How far it is; `before` were done by an earlier run."""

    total: int
    before: int
    done: int = 0
    failed: int = 0


class Batch:
    """One input file and one output file."""

    def __init__(self, source: Path, target: Path, defaults: Options) -> None:
        """`defaults` hold for requests that say nothing else. Raises UsageError when a file cannot be used."""
        self._source = source
        self._target = target
        self._defaults = defaults
        keys = {line.number: line.key for line in self._lines()}
        self._finished = _keep_successes(target, keys)
        self.tally = BatchProgress(total=len(keys), before=len(self._finished))

    async def run(
        self, client: AsyncClient, *, concurrency: int, timeout_seconds: float, tell: Callable[[BatchProgress], None]
    ) -> None:
        """Do what is left. Raises Unauthorized or ConnectionFailed, which the next line would meet as well."""
        asked: dict[int, BatchLine] = {}
        with self._target.open("a", encoding="utf-8") as output:
            tell(self.tally)
            requests = self._requests(output, asked)
            outcomes = client.rerank_many(requests, concurrency=concurrency, timeout_seconds=timeout_seconds)
            async with aclosing(outcomes):
                async for outcome in outcomes:
                    line = asked.pop(outcome.position)
                    if isinstance(outcome.error, Unauthorized | ConnectionFailed):
                        raise outcome.error
                    if outcome.ranking is not None:
                        self._write(output, line, ranking=outcome.ranking.raw)
                    elif outcome.error is not None:
                        self._write(output, line, error=_described(outcome.error))
                    tell(self.tally)

    def _requests(self, output: TextIO, asked: dict[int, BatchLine]) -> Iterator[Request]:
        """What is left, each as it is asked for, with its line under its position; what is no request is said so."""
        position = 0
        for line in self._lines():
            if line.number in self._finished:
                continue
            if line.request is None:
                self._write(output, line, error=_described(_no_request(line)))
            else:
                asked[position] = line
                position += 1
                yield line.request

    def _lines(self) -> Iterator[BatchLine]:
        try:
            with self._source.open(encoding="utf-8") as opened:
                for number, text in enumerate(opened, start=1):
                    if text.strip():
                        yield _line(number, text, self._defaults)
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read {self._source}: {error}") from error

    def _write(self, output: TextIO, line: BatchLine, **result: JsonObject) -> None:
        row = {"line": line.number, "custom_id": line.custom_id, "key": line.key, **result}
        output.write(json.dumps(row, ensure_ascii=False) + "\n")
        output.flush()
        self.tally.done += 1
        self.tally.failed += "error" in result


def _described(error: RerankError) -> JsonObject:
    return {"type": error.code or type(error).__name__, "message": error.message, "status": error.status}


def _no_request(line: BatchLine) -> RerankError:
    wanted = "an object with query, a string, and documents, a list, is expected"
    return InvalidRequest(f"line {line.number} is no request: {wanted}", code="invalid_request")


def _line(number: int, text: str, defaults: Options) -> BatchLine:
    try:
        said = json.loads(text)
        custom_id = said.get("custom_id")
        body = {**defaults, **said.get("body", said)}
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
    """The lines that an earlier run has ranked. What failed then, or was cut off, is taken out of the file."""
    if not target.exists():
        return set()
    kept: set[int] = set()
    beside = target.with_name(f"{target.name}.part")
    try:
        with target.open(encoding="utf-8", errors="replace") as opened, beside.open("w", encoding="utf-8") as copy:
            for text in opened:
                row = _row(text, target)
                number: int = row.get("line", 0)
                if "ranking" in row and number not in kept and keys.get(number) == row["key"]:
                    copy.write(text)
                    kept.add(number)
        os.replace(beside, target)
    except OSError as error:
        raise UsageError(f"cannot go on with {target}: {error}") from error
    finally:
        beside.unlink(missing_ok=True)
    return kept


def _row(text: str, target: Path) -> JsonObject:
    """A row of an earlier run; nothing of one that was cut off. Raises UsageError for what no batch has written."""
    try:
        row = json.loads(text)
    except ValueError:
        if not text.endswith("\n"):
            return {}
        row = None
    if not isinstance(row, dict) or not isinstance(row.get("line"), int) or "key" not in row:
        raise UsageError(f"{target} is there, and no batch has written it; name another file")
    return row
