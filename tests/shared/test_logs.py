"""One event a line, as JSON or as text; nothing that a caller sent; and few repeated warnings."""

import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from shared.errors import InvalidRequest, StoreUnavailable
from shared.logs import (
    REPEAT_SECONDS,
    REPEATS,
    JsonFormatter,
    RepeatFilter,
    TextFormatter,
    event_of,
    request_fields,
)

SECRET = "a secret"
LOGGER = logging.getLogger("tests.shared.test_logs.own")


class Output:
    """A logger's output in one form."""

    def __init__(self, formatter: logging.Formatter) -> None:
        self._stream = io.StringIO()
        self.handler = logging.StreamHandler(self._stream)
        self.handler.setFormatter(formatter)

    def lines(self) -> list[str]:
        return self._stream.getvalue().splitlines()

    def line(self) -> Any:
        """The only line, which is JSON."""
        (line,) = self.lines()
        return json.loads(line)


@pytest.fixture
def as_json() -> Iterator[Output]:
    yield from attach(Output(JsonFormatter({"process": "worker", "model": "small"})))


@pytest.fixture
def as_text() -> Iterator[Output]:
    yield from attach(Output(TextFormatter({"process": "api"})))


def attach(output: Output) -> Iterator[Output]:
    LOGGER.addHandler(output.handler)
    LOGGER.setLevel(logging.DEBUG)
    LOGGER.propagate = False
    yield output
    LOGGER.removeHandler(output.handler)


class TestJson:
    def test_a_line_has_time_level_logger_event_and_fields(self, as_json: Output) -> None:
        LOGGER.warning("a shard is released", extra={"job": "job-1", "shard": 3, "error": None})
        line = as_json.line()
        assert abs(time.time() - time.mktime(time.strptime(line.pop("time")[:19], "%Y-%m-%dT%H:%M:%S"))) < 90_000
        assert line == {
            "level": "warning",
            "logger": LOGGER.name,
            "event": "a shard is released",
            "process": "worker",
            "model": "small",
            "job": "job-1",
            "shard": 3,
        }

    def test_the_time_is_utc_with_milliseconds(self, as_json: Output) -> None:
        LOGGER.handle(
            logging.makeLogRecord(
                {"name": LOGGER.name, "levelno": logging.INFO, "msg": "x", "created": 86_400.25, "msecs": 250.0}
            )
        )
        assert as_json.line()["time"] == "1970-01-02T00:00:00.250Z"

    def test_the_fields_of_the_request_are_in_each_of_its_lines(self, as_json: Output) -> None:
        token = request_fields.set({"request": "r1"})
        LOGGER.info("one")
        request_fields.reset(token)
        LOGGER.info("two")
        one, two = map(json.loads, as_json.lines())
        assert (one["request"], "request" in two) == ("r1", False)

    def test_line_breaks_and_long_texts_stay_in_one_short_line(self, as_json: Output) -> None:
        LOGGER.info("a\nb", extra={"error": "x\n" * 10_000})
        assert as_json.line()["event"] == "a\nb"
        assert len(as_json.lines()[0]) < 2000

    def test_an_exception_is_a_field(self, as_json: Output) -> None:
        try:
            raise StoreUnavailable("Redis is unreachable") from ConnectionError("refused")
        except StoreUnavailable:
            LOGGER.exception("failed")
        exception = as_json.line()["exception"]
        assert "builtins.ConnectionError: refused" in exception
        assert "test_logs.py" in exception
        assert exception.endswith("shared.errors.StoreUnavailable: Redis is unreachable")


class TestText:
    def test_a_line_has_the_event_and_then_its_fields(self, as_text: Output) -> None:
        LOGGER.info("request", extra={"route": "/v1/rerank", "status": 200, "note": 'a "b" c', "other": "a=b"})
        (line,) = as_text.lines()
        assert line.partition(" INFO ")[2] == (
            f'{LOGGER.name}: request process=api route=/v1/rerank status=200 note="a \\"b\\" c" other="a=b"'
        )

    def test_a_line_break_cannot_forge_a_line(self, as_text: Output) -> None:
        LOGGER.info("one\ntwo", extra={"error": "three\nfour"})
        assert len(as_text.lines()) == 1

    def test_an_exception_follows(self, as_text: Output) -> None:
        LOGGER.error("failed", exc_info=OSError("no room"))
        assert as_text.lines()[-1] == "builtins.OSError: no room"


class Model(BaseModel):
    top_n: int


def invalid_model() -> Exception:
    with pytest.raises(ValidationError) as caught:
        Model.model_validate({"top_n": SECRET})
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        KeyError("a secret"),
        ValueError("invalid literal for int(): 'a secret'"),
        InvalidRequest("no model named 'a secret'", param="model"),
        invalid_model(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_messages_that_may_quote_a_caller_are_left_out(as_json: Output, error: Exception) -> None:
    LOGGER.error("failed", exc_info=error)
    assert type(error).__name__ in as_json.lines()[0]
    assert "a secret" not in as_json.lines()[0]


class TestRepeats:
    def test_a_few_equal_warnings_are_logged_and_the_others_counted(self, as_json: Output) -> None:
        now = [0.0]
        as_json.handler.addFilter(RepeatFilter(lambda: now[0]))
        for number in range(100):
            LOGGER.warning("no answer", extra={"attempt": number})
        LOGGER.warning("another event")
        assert len(as_json.lines()) == REPEATS + 1
        now[0] = REPEAT_SECONDS
        LOGGER.warning("no answer")
        assert json.loads(as_json.lines()[-1])["suppressed"] == 100 - REPEATS
        LOGGER.warning("no answer")
        assert "suppressed" not in json.loads(as_json.lines()[-1])

    def test_other_lines_are_not_counted(self, as_json: Output) -> None:
        as_json.handler.addFilter(RepeatFilter())
        for _ in range(20):
            LOGGER.info("request")
        assert len(as_json.lines()) == 20

    def test_made_up_events_do_not_fill_the_memory(self) -> None:
        repeats = RepeatFilter()
        for number in range(5000):
            repeats.filter(logging.makeLogRecord({"levelno": logging.ERROR, "msg": f"event {number}"}))
        assert len(repeats._seen) <= 1001


@pytest.mark.parametrize(
    ("line", "event"),
    [
        ('{"event": "ready"}', "ready"),
        ('{"event": "the model cannot be loaded", "error": "no device"}', "the model cannot be loaded: no device"),
        ("Segmentation fault", "Segmentation fault"),
        ("[1]", "[1]"),
        ("{}", "{}"),
    ],
)
def test_the_event_of_a_line(line: str, event: str) -> None:
    assert event_of(line) == event


PROGRAM = """
import logging, sys, threading, time
from shared.logs import set_up_logging
set_up_logging("INFO", sys.argv[1], process="api")
threading.Thread(target=time.sleep, args=(30,), name="sleeper", daemon=True).start()
logging.getLogger("one").info("started", extra={"job": "j"})
time.sleep(30)
"""


def test_a_process_logs_json_where_no_terminal_is_and_dumps_its_stacks_on_sigusr2(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as output:
        child = subprocess.Popen([sys.executable, "-c", PROGRAM, "auto"], stderr=output)
    try:
        wait_for(log, b"started")
        assert json.loads(log.read_text())["job"] == "j"
        os.kill(child.pid, signal.SIGUSR2)
        wait_for(log, b"Current thread")
        assert log.read_text().count("Thread 0x") >= 1
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()


def wait_for(log: Path, text: bytes) -> None:
    deadline = time.monotonic() + 20
    while text not in log.read_bytes():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
