"""Reads the lines of an input file as requests. Both modes accept the same lines and give them the same keys.

A line is a request, `{"query", "documents", ...}` with an optional `custom_id`, or a line of OpenAI's Batch format with
the request as its `body`. Its `url` is ignored: every ranking has the format of the superset. The key is a digest of
the request. The file is never loaded into memory.
"""

import codecs
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from client.documents import UsageError
from client.errors import InvalidRequest, RerankError
from client.records import JsonObject, Options, Request

LARGE_LINES, LARGE_BYTES = 1000, 8 << 20


@dataclass(frozen=True, slots=True)
class BatchLine:
    """An input line that is not blank; `request` is None when it is not a valid request. `text` has no line break."""

    number: int
    custom_id: Any
    key: str
    request: Request | None
    text: bytes = field(repr=False)
    data: Any = field(repr=False, default=None)

    @property
    def error(self) -> RerankError:
        """The error of a line that is not a valid request."""
        wanted = "expected an object with query (a string) and documents (a list)"
        return InvalidRequest(f"line {self.number} is not a request: {wanted}", code="invalid_request")

    def for_upload(self) -> bytes:
        """The line as it is sent to the service: without a url, and with a `custom_id` only if that is a string.

        The service rejects other ids. It repeats them only in results, where this client writes the input's own.
        """
        custom_id, data = self.custom_id, self.data
        if (custom_id is None or (custom_id and isinstance(custom_id, str))) and not data.keys() & {"url", "method"}:
            return self.text
        fields = {name: data[name] for name in data if name not in ("custom_id", "url", "method")}
        if custom_id and isinstance(custom_id, str):
            fields["custom_id"] = custom_id
        return json.dumps(fields).encode()


class InputFile:
    """The file of requests; `defaults` apply to requests without these options."""

    def __init__(self, path: Path, defaults: Options) -> None:
        self.path = path
        self._defaults = defaults

    def lines(self, on_progress: Callable[[int], None] | None = None) -> Iterator[BatchLine]:
        """Yield the lines that are not blank; `on_progress` receives the bytes read so far. Raises UsageError."""
        read = 0
        for number, text in enumerate(self._texts(), start=1):
            read += len(text)
            if stripped := text.strip():
                yield _parse_line(number, stripped, self._defaults)
            if on_progress is not None and not number % 256:
                on_progress(read)

    def is_large(self) -> bool:
        """Whether the file has more than LARGE_BYTES or LARGE_LINES. Raises UsageError."""
        if self.size > LARGE_BYTES:
            return True
        return sum(bool(text.strip()) for text in self._texts()) > LARGE_LINES

    @property
    def size(self) -> int:
        """The size in bytes. Raises UsageError."""
        try:
            return self.path.stat().st_size
        except OSError as error:
            raise self._unreadable(error) from error

    def digest(self) -> str:
        """The SHA-256 of the file. Raises UsageError."""
        try:
            with self.path.open("rb") as opened:
                return hashlib.file_digest(opened, "sha256").hexdigest()
        except OSError as error:
            raise self._unreadable(error) from error

    def _texts(self) -> Iterator[bytes]:
        try:
            with self.path.open("rb") as opened:
                for number, text in enumerate(opened):
                    yield text if number else text.removeprefix(codecs.BOM_UTF8)
        except OSError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError) -> UsageError:
        return UsageError(f"cannot read {self.path}: {error}")


def describe_error(error: RerankError) -> JsonObject:
    """The error as the output file shows it."""
    return {"type": error.code or type(error).__name__, "message": error.message, "status": error.status}


def row_text(line: BatchLine, **result: JsonObject) -> bytes:
    """A row of the output file, with its line break; `result` is `ranking` or `error`."""
    row = {"line": line.number, "custom_id": line.custom_id, "key": line.key, **result}
    try:
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        # Half of a surrogate pair, which UTF-8 cannot represent.
        return json.dumps(row).encode() + b"\n"


def _parse_line(number: int, text: bytes, defaults: Options) -> BatchLine:
    try:
        data = json.loads(text.decode())
        custom_id = data.get("custom_id")
        body: JsonObject = {**data.get("body", data)}
        # As in the service, null is an absent field.
        body |= {name: value for name, value in defaults.items() if body.get(name) is None}
        body.pop("custom_id", None)
        query, documents = body.pop("query"), body.pop("documents")
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError):
        return BatchLine(number, None, "", None, text)
    if not isinstance(query, str) or not isinstance(documents, list):
        return BatchLine(number, custom_id, "", None, text)
    key = "batch-" + _digest({"query": query, "documents": documents, **body})
    return BatchLine(number, custom_id, key, Request(query, documents, cast(Options, body), key), text, data)


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:40]
