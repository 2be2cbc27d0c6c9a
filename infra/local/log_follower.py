"""Follows a process's log file and passes on the messages of one logger."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_POLL_SECONDS = 0.1


class LogFollower:
    """The messages of one logger in a log file, which may not exist yet."""

    def __init__(self, log: Path, logger: str) -> None:
        self._log = log
        self._line = re.compile(rf"\d{{4}}-\S+ \S+ [A-Z]+ {re.escape(logger)}: (.*)")
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
        texts = (line.decode(errors="replace") for line in lines)
        return [match[1] for text in texts if (match := self._line.fullmatch(text))]


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
