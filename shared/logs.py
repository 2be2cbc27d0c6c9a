"""Log lines of every process: one event a line, with fields; for people on a terminal, JSON elsewhere.

Owns the format of lines, the fields that a process or a request adds to each of them, and the limit on repeated
warnings. An event is a fixed text; what varies is in its fields: `logger.info("shard rejected", extra={"job": ...})`.
No line may contain an API key, a query, a document, or other text that a caller chooses: log ids, names of routes, and
numbers. (Not a library's formatter: importing one takes 90 ms of each worker's start.)
"""

import faulthandler
import json
import logging
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, Literal, TextIO

from shared.errors import ConfigurationError, ServiceError

LogForm = Literal["auto", "text", "json"]

REPEATS = 5
"""How many equal warnings are logged in REPEAT_SECONDS; the others are counted."""
REPEAT_SECONDS = 10.0
_MAX_EVENTS = 1000
_MAX_TEXT = 500
"""Longer texts in fields are cut."""
_OWN_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "suppressed"}
_SPEAKING = (ServiceError, ConfigurationError, OSError, RuntimeError, ImportError, MemoryError)
"""Exceptions whose message is logged. Others may quote what a caller sent: `KeyError`, `ValidationError`."""

request_fields: ContextVar[Mapping[str, Any]] = ContextVar("request_fields", default={})  # noqa: B039 - never changed
"""Fields of every line that is logged in this context."""


def set_up_logging(level: str, form: LogForm = "auto", **fields: str) -> None:
    """Log to standard error. `fields` are added to every line of this process.

    SIGUSR2 then writes the stacks of all threads to standard error.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter(fields) if resolve_form(form) == "json" else TextFormatter(fields))
    handler.addFilter(RepeatFilter())
    logging.basicConfig(level=level, handlers=[handler])
    if sys.__stderr__ is not None:
        dump_stacks_on_signal(sys.__stderr__)


def resolve_form(form: LogForm) -> Literal["text", "json"]:
    """The form of this process's lines: `auto` is text on a terminal and JSON elsewhere."""
    if form == "auto":
        return "text" if sys.stderr.isatty() else "json"
    return form


def event_of(line: str) -> str:
    """The event of a JSON line, with its error; any other line as it is."""
    try:
        fields = json.loads(line)
        error = f": {fields['error']}" if "error" in fields else ""
        return f"{fields['event']}{error}"
    except (ValueError, TypeError, KeyError):
        return line


def dump_stacks_on_signal(file: TextIO) -> None:
    """Write the stacks of all threads to a file whenever this process receives SIGUSR2."""
    faulthandler.register(signal.SIGUSR2, file=file, all_threads=True)


def fields_of(record: logging.LogRecord, process_fields: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a line: the process's, the request's and its own. None and empty texts are left out."""
    own = {name: value for name, value in vars(record).items() if name not in _OWN_ATTRIBUTES}
    fields = {**process_fields, **request_fields.get(), **own}
    if suppressed := getattr(record, "suppressed", 0):
        fields["suppressed"] = suppressed
    return {name: _shorten(value) for name, value in fields.items() if value is not None and value != ""}


def _shorten(value: Any) -> Any:
    if isinstance(value, bool | int | float):
        return value
    text = str(value)
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}..."


def describe_exception(error: BaseException) -> str:
    """The traceback, with the message only of exceptions that do not quote what a caller sent."""
    lines = []
    for each in reversed(_chain(error)):
        frames = traceback.format_tb(each.__traceback__)
        message = f": {_shorten(each)}" if isinstance(each, _SPEAKING) else ""
        lines.append(f"{''.join(frames)}{type(each).__module__}.{type(each).__qualname__}{message}")
    return "\n".join(lines)


def _chain(error: BaseException) -> list[BaseException]:
    """The exception, its cause, the cause's cause ..."""
    chain: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and each not in chain:
        chain.append(each)
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
    return chain


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC, RFC 3339), level, logger, event, fields, and the exception if there is one."""

    def __init__(self, fields: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._fields = fields or {}

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, Any] = {
            "time": f"{_second(record.created)}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **fields_of(record, self._fields),
        }
        if record.exc_info and record.exc_info[1]:
            line["exception"] = describe_exception(record.exc_info[1])
        return json.dumps(line)


class TextFormatter(logging.Formatter):
    """For people: local time, level, logger, event and `key=value` fields; an exception follows on lines of its own."""

    def __init__(self, fields: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._fields = fields or {}

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        fields = "".join(f" {name}={_quote(value)}" for name, value in fields_of(record, self._fields).items())
        event = record.getMessage().replace("\n", "\\n")
        line = f"{when}.{int(record.msecs):03d} {record.levelname} {record.name}: {event}{fields}"
        if record.exc_info and record.exc_info[1]:
            line += f"\n{describe_exception(record.exc_info[1])}"
        return line


def _second(seconds: float, cache: list[tuple[int, str]] = [(0, "")]) -> str:  # noqa: B006 - the cache is meant
    """Date and time of a second in UTC. Formatting takes longer than the rest of a line; so the last is kept."""
    whole = int(seconds)
    if cache[0][0] != whole:
        cache[0] = (whole, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)))
    return cache[0][1]


def _quote(value: Any) -> str:
    text = str(value)
    plain = text.isascii() and text.isprintable() and not any(character in text for character in ' "=')
    return text if plain and text else json.dumps(text)


class RepeatFilter(logging.Filter):
    """Lets a few equal warnings and errors through in ten seconds; the next one has the number of those left out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is logged. Equal are those of one logger with the same event, whatever their fields."""
        if record.levelno < logging.WARNING:
            return True
        if len(self._seen) > _MAX_EVENTS:
            self._seen.clear()
        key, now = (record.name, str(record.msg)), self._clock()
        started, count = self._seen.get(key, (now, 0))
        if now - started >= REPEAT_SECONDS:
            record.suppressed = max(0, count - REPEATS)
            started, count = now, 0
        self._seen[key] = (started, count + 1)
        return count < REPEATS
