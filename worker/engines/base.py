"""What every engine promises the worker. Knows nothing of queues, jobs or any model library."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from shared.contracts import MAX_PRIORITY, ScoreScale


class EngineError(Exception):
    """The engine can never score this batch; the message is one sentence without a document's text in it."""


class TransientEngineError(EngineError):
    """The engine could not score this batch now; another try may succeed."""


class EngineDied(EngineError):
    """The engine is gone for good, and with it this worker's use."""


class ScoringAborted(Exception):
    """The batch was cancelled: there is nothing to score any more, or somebody else will."""


class Cancellation:
    """Tells an engine that nobody wants a batch any more. Made by the worker, watched by the engine."""

    def __init__(self) -> None:
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        self._callback: Callable[[], None] | None = None

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Safe to call twice, and from any thread."""
        with self._lock:
            self._cancelled.set()
            callback, self._callback = self._callback, None
        if callback is not None:
            callback()

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call back once when it is cancelled, at once when it was."""
        with self._lock:
            if not self._cancelled.is_set():
                self._callback = callback
                return
        callback()

    def wait(self, seconds: float) -> bool:
        """Wait; answers whether it was cancelled meanwhile."""
        return self._cancelled.wait(seconds)


class EngineStartError(Exception):
    """The engine cannot serve this model; the message is one clear sentence for the operator and the caller."""


BACKGROUND = MAX_PRIORITY + 1
"""A priority from here on says that nobody waits: such work is scored when there is nothing more urgent to do."""


@dataclass(frozen=True, slots=True)
class ScoringBatch:
    """One query against documents; the fields are those of shared.contracts.RerankRequest.

    None means the model's own limit. A lower `priority` is scored sooner, across all batches in the engine.
    """

    query: str
    documents: list[str]
    instruction: str | None = None
    max_tokens_per_query: int | None = None
    max_tokens_per_doc: int | None = None
    max_chunks_per_doc: int = 1
    overlap_tokens: int | None = None
    priority: int = 0


@dataclass(frozen=True, slots=True)
class BatchScores:
    """The model's own score for each document, in order; None where it failed alone, `errors` saying why.

    `prompt_tokens` counts the tokens that went into the model. `truncated` and `windows` as in ShardScores.
    """

    scores: list[float | None]
    prompt_tokens: int
    truncated: list[int] = field(default_factory=list)
    windows: dict[int, tuple[int, int]] = field(default_factory=dict)
    errors: dict[int, str] = field(default_factory=dict)


class Pending(Protocol):
    """A batch that an engine has taken in."""

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        """Call back once, from any thread, when `result` would not wait."""

    def result(self) -> BatchScores:
        """The scores. Raises what `score` raises."""


class ScoringEngine(Protocol):
    """Scores batches. `score` blocks, and is called from many threads at once.

    An engine that batches continuously also has `begin(batch, cancellation) -> Pending`, which takes a batch in and
    waits for nothing.
    """

    @property
    def scale(self) -> ScoreScale:
        """What the raw scores are."""

    def score(self, batch: ScoringBatch, cancellation: Cancellation) -> BatchScores:
        """Score one batch. Raises EngineError, or ScoringAborted soon after it was cancelled."""

    def close(self) -> None:
        """Free what the engine holds; a `score` still waiting raises EngineDied. Safe to call twice."""
