"""Follows a process's log file, which has JSON lines, and passes on the events of one logger."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_POLL_SECONDS = 0.1


class LogFollower:
    """The messages of one logger in a log file, which may not exist yet."""

    def __init__(self, log: Path, logger: str) -> None:
        self._log = log
        self._logger = logger
        self._read = 0
        self._rest = b""

    def new(self) -> list[str]:
        """The messages written since the last call."""
        with suppress(FileNotFoundError), self._log.open("rb") as log:
            log.seek(self._read)
            chunk = log.read()
            self._read += len(chunk)
            self._rest += chunk
        *lines, self._rest = self._rest.split(b"\n")
        return [event for line in lines if (event := self._event_of(line)) is not None]

    def _event_of(self, line: bytes) -> str | None:
        """The event of a line that the logger wrote."""
        try:
            fields = json.loads(line)
        except ValueError:
            return None  # the output of another program
        return fields.get("event") if isinstance(fields, dict) and fields.get("logger") == self._logger else None


@contextmanager
def follow_log(log: Path, logger: str, on_message: Callable[[str], None]) -> Iterator[None]:
    """Call `on_message` for every message, from another thread, while the block runs."""
    stopped = threading.Event()
    follower = LogFollower(log, logger)

    def follow() -> None:
        while not stopped.wait(_POLL_SECONDS):
            for message in follower.new():
                on_message(message)

    thread = threading.Thread(target=follow, name="follower", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
