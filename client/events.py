"""Follows a job by its server-sent events, without any I/O; client.protocol makes the calls."""

import json
from collections.abc import Callable
from typing import Any

from client.errors import UnexpectedAnswer
from client.records import Job, JsonObject

SILENCE_SECONDS = 35.0
"""How long a stream may send nothing. The service sends something every 15 seconds, unless a proxy holds it back."""


class JobEvents:
    """The latest state of a job, and its result if that is wanted, from one stream after the other."""

    def __init__(
        self, job: Job, on_progress: Callable[[Job], None] | None = None, *, wants_result: bool = False
    ) -> None:
        """`on_progress` receives each state before the end."""
        self.job = job
        self.ended = job.final
        self.result: JsonObject | None = None
        self.wants_result = wants_result
        self.last_id: str | None = None
        self.received = 0
        """The number of events so far."""
        self.on_progress = on_progress
        self._unread: list[bytes] = []

    def begin(self) -> None:
        """Expect the beginning of a stream."""
        self._unread = []

    def update(self, job: Job) -> None:
        """Take over a state that was read in another way."""
        self.job, self.ended = job, job.final

    def feed(self, chunk: bytes) -> bool:
        """Read a part of a stream. Returns whether the job has ended. Raises UnexpectedAnswer."""
        self._unread.append(chunk)
        # The data of an event is one line, which may be long: join its parts only once.
        if b"\n" not in chunk:
            return self.ended
        *blocks, rest = b"".join(self._unread).replace(b"\r\n", b"\n").split(b"\n\n")
        self._unread = [rest]
        for block in blocks:
            self._read(block.decode(errors="replace").split("\n"))
        return self.ended

    def _read(self, lines: list[str]) -> None:
        # A line without a name is a comment.
        parts = [line.partition(":") for line in lines]
        fields = {name: value.removeprefix(" ") for name, _, value in parts if name not in ("", "data")}
        data = "\n".join(value.removeprefix(" ") for name, _, value in parts if name == "data")
        if not data:
            return
        try:
            self._handle(fields.get("event", ""), json.loads(data))
        except (ValueError, TypeError, AttributeError) as error:
            raise UnexpectedAnswer(f"not an event of a job: {data[:200]}") from error
        self.last_id = fields.get("id", self.last_id)
        self.received += 1
        if self.on_progress and not self.job.final:
            self.on_progress(self.job)

    def _handle(self, name: str, data: Any) -> None:
        match name:
            case "progress":
                status = data.get("status", self.job.status)
                self.job = Job.read(self.job.raw | {"status": status, "progress": data})
            case "result":
                self.result = data
            case "end":
                self.update(Job.read(data))
