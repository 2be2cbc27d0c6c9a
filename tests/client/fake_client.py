"""Executes the operations of the client without a service."""

import json
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from client.batch_protocol import BatchProtocol
from client.calls import Answer, Body, Call, Pause, Steps
from client.protocol import ClientProtocol

T = TypeVar("T")


def answer(status: int, data: Any, **headers: str) -> Answer:
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, json.dumps(data).encode())


def stream_answer(*events: tuple[str, Any] | tuple[str, Any, str]) -> Answer:
    """A stream of events: name, data and, for some, an id. Half of its lines end with CR LF."""
    blocks = []
    for name, data, *ids in events:
        number = f"id: {ids[0]}\n" if ids else ""
        blocks.append(f"event: {name}\r\n{number}data: {json.dumps(data, ensure_ascii=False)}\r\n\n")
    return Answer(200, {"content-type": "text/event-stream"}, f": waiting\n\n{''.join(blocks)}".encode())


def error_answer(status: int, code: str, **headers: str) -> Answer:
    return answer(status, {"error": {"type": code, "message": f"message of {code}"}}, **headers)


class FakeClient:
    """Executes operations with prepared answers, each of which takes `seconds`. Records the calls and pauses."""

    def __init__(self, *answers: Answer | BaseException, seconds: float = 0.2) -> None:
        self._answers: Iterator[Answer | BaseException] = iter(answers)
        self._seconds = seconds
        self.now = 0.0
        self.calls: list[Call] = []
        self.pauses: list[float] = []
        self.sent: list[bytes] = []
        """The bodies that were streamed."""
        self.protocol = ClientProtocol(retries=2, clock=lambda: self.now)
        self.batches = BatchProtocol(retries=2, clock=lambda: self.now)

    def execute(self, steps: Steps[T]) -> T:
        given: Answer | BaseException | None = None
        while True:
            try:
                step = steps.throw(given) if isinstance(given, BaseException) else steps.send(given)
            except StopIteration as end:
                result: T = end.value
                return result
            if isinstance(step, Pause):
                self.now += step.seconds
                self.pauses.append(step.seconds)
                given = None
            else:
                self.now += self._seconds
                self.calls.append(step)
                if isinstance(step.body, Body):
                    self.sent.append(b"".join(step.body.chunks()))
                given = next(self._answers)
                if step.target is not None and isinstance(given, Answer):
                    step.target.write(given.body)
                if step.on_chunk is not None and isinstance(given, Answer) and given.status == 200:
                    given = self._stream(step.on_chunk, given)

    def _stream(self, on_chunk: Callable[[bytes], bool], given: Answer) -> Answer | BaseException:
        """Pass on the body in small parts. Returns what the call then gets: an answer without the body, or an error."""
        parts = (given.body[start : start + 7] for start in range(0, len(given.body), 7))
        try:
            any(on_chunk(part) for part in parts)
        except Exception as error:
            return error
        return Answer(given.status, given.headers, b"")

    @property
    def requests(self) -> list[str]:
        return [f"{call.method} {call.path}" for call in self.calls]
