"""HTTP calls as data, and how they are repeated after temporary failures, without any I/O.

An operation is a generator: it yields a Call or a Pause, and receives the Call's Answer. The blocking client, the
asynchronous client and the tests execute the same generators.
"""

import json
import random
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, TypeVar

from client.errors import ConnectionFailed, Overloaded, RerankError, Unavailable, UnexpectedAnswer, error_of

T = TypeVar("T")

ANSWER_SECONDS = 30.0
"""How long an answer may take beyond the requested wait."""
CLEANUP_SECONDS = 2.0
GRACE_SECONDS = 2.0
"""How long a call may exceed the caller's timeout, so that an answer sent at the last moment still arrives."""
_FIRST_PAUSE, _LONGEST_PAUSE, _LONGEST_RETRY_AFTER = 0.5, 8.0, 60.0
_RETRYABLE = (ConnectionFailed, Overloaded, Unavailable)


@dataclass(frozen=True, slots=True)
class Body:
    """A request body of `size` bytes that is read while it is sent. `chunks` begins at its start each time."""

    chunks: Callable[[], Iterator[bytes]]
    size: int


@dataclass(frozen=True, slots=True)
class Call:
    """An HTTP call; `seconds` is how long it may take, or how long a streamed body may make no progress.

    `target` is a seekable file: the body of a successful answer replaces its content, and is not in the Answer.
    `on_chunk` receives the body of a successful answer while it arrives, instead of the Answer; when it returns True,
    the rest is not read.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Body | None = None
    seconds: float = ANSWER_SECONDS
    target: BinaryIO | None = None
    on_chunk: Callable[[bytes], bool] | None = None


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait for `seconds` before the next step."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Raises UnexpectedAnswer."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise UnexpectedAnswer(f"the answer is not JSON: {self.body[:200]!r}", status=self.status) from error


Steps = Generator[Call | Pause, Answer | None, T]
"""An operation. The client throws into it the exception that a Call raised: ConnectionFailed, or an interruption."""


class Caller:
    """Makes calls and repeats them: the base of the classes that hold operations. All raise RerankError."""

    def __init__(self, *, retries: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`retries` is how often a call is repeated after a temporary failure, each time after its Retry-After."""
        self._retries = retries
        self._clock = clock

    def _call_once(self, call: Call) -> Steps[None]:
        """Make a call once and ignore its failure."""
        with suppress(RerankError):
            yield call

    def _call(self, call: Call, deadline: float) -> Steps[Answer]:
        """Make the call, and retry temporary failures until the deadline."""
        failures = 0
        while True:
            left = max(deadline - self._clock(), 0)
            try:
                return (yield from attempt(replace(call, seconds=min(call.seconds, left + GRACE_SECONDS))))
            except RerankError as failed:
                error = failed
            pause = self._retry_delay(failures, error)
            if pause is None or self._clock() + pause > deadline:
                raise error
            yield Pause(pause)
            failures += 1

    def _call_patiently(self, call: Call, patience: float) -> Steps[Answer]:
        """Make the call, and retry temporary failures for at least `patience` seconds after the first one.

        For calls that may take hours, or follow work that takes hours: a restart of the service must not end them.
        """
        failures, first_failure = 0, 0.0
        while True:
            try:
                return (yield from attempt(call))
            except _RETRYABLE as failed:
                error = failed
            now = self._clock()
            first_failure = now if failures == 0 else first_failure
            if failures >= self._retries and now - first_failure >= patience:
                raise error
            yield Pause(min(_pause(failures) if error.retry_after is None else error.retry_after, _LONGEST_RETRY_AFTER))
            failures += 1

    def _retry_delay(self, failures: int, error: RerankError) -> float | None:
        """Seconds to wait before the next attempt; None when another attempt would not help."""
        if failures >= self._retries or not isinstance(error, _RETRYABLE):
            return None
        if error.retry_after is not None:
            return error.retry_after if error.retry_after <= _LONGEST_RETRY_AFTER else None
        return _pause(failures)


def attempt(call: Call) -> Steps[Answer]:
    """Make the call once. Raises the error of an answer with status 400 or more."""
    answer = yield call
    assert answer is not None
    if answer.status >= 400:
        raise error_of(answer.status, answer.headers, answer.body)
    return answer


def _pause(failures: int) -> float:
    """The pause after a failure without Retry-After, in seconds. It doubles with each failure, and is random."""
    longest: float = min(_FIRST_PAUSE * 2 ** min(failures, 10), _LONGEST_PAUSE)
    return longest * random.uniform(0.5, 1)
