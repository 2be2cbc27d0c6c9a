"""The log lines of this process, as JSON, for tests."""

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from shared.logs import JsonFormatter


class LogLines:
    """What is logged while `log_lines` is open."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    def of(self, logger: str = "") -> list[dict[str, Any]]:
        """The lines of a logger; of all loggers without a name."""
        lines = [json.loads(line) for line in self.text.splitlines()]
        return [line for line in lines if logger in ("", line["logger"])]


@contextmanager
def log_lines(level: int = logging.DEBUG) -> Iterator[LogLines]:
    """Collect the lines of all loggers."""
    lines, root = LogLines(), logging.getLogger()
    handler = logging.StreamHandler(lines.stream)
    handler.setFormatter(JsonFormatter())
    before = root.level
    root.addHandler(handler)
    root.setLevel(level)
    try:
        yield lines
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
