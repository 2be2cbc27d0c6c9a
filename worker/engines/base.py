"""The interface between the worker and its engines. Knows nothing of queues, jobs or model libraries."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from shared.contracts import MAX_PRIORITY, ScoreScale, Truncation


class EngineError(Exception):
    """The engine can never score this batch. The message is one sentence, without text of documents."""


class LimitRefused(EngineError):
    """What the batch asks for does not fit the model. `param` is the name of the field in a request."""

    def __init__(self, message: str, *, param: str) -> None:
        super().__init__(message)
        self.param = param


class TextOverLimit(EngineError):
    """A text is over a limit, and the batch forbids truncation. The engine has computed nothing.

    `text` is the document's position in the batch, or names several texts: "query", "documents". `tokens` and `limit`
    count the same tokens; `reason` says which ones, and which limit.
    """

    def __init__(self, text: int | str, tokens: int, limit: int, counted: str, limit_name: str = "the limit") -> None:
        self.reason = f"{tokens} tokens {counted}, but {limit_name} is {limit}"
        super().__init__(f"{text}: {self.reason}")
        self.text = text
        self.tokens = tokens
        self.limit = limit


class TransientEngineError(EngineError):
    """The engine could not score this batch now; a retry may succeed."""


class EngineDied(EngineError):
    """The engine has died and cannot score any more; the worker must exit."""


class ScoringAborted(Exception):
    """The batch was cancelled: its job ended, or another worker scores it."""


@dataclass(frozen=True, slots=True)
class EngineStep:
    """One step of an engine: its duration, and the prompts that it completed with their tokens."""

    seconds: float
    prompts: int
    tokens: int


class Cancellation:
    """Cancels a batch. Created by the worker, observed by the engine."""

    def __init__(self) -> None:
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        self._callback: Callable[[], None] | None = None

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Cancel. Safe to call more than once, from any thread."""
        with self._lock:
            self._cancelled.set()
            callback, self._callback = self._callback, None
        if callback is not None:
            callback()

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Register the one callback for cancellation. Calls it at once when already cancelled."""
        with self._lock:
            if not self._cancelled.is_set():
                self._callback = callback
                return
        callback()

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds` for cancellation. Returns whether it is cancelled."""
        return self._cancelled.wait(seconds)


class EngineStartError(Exception):
    """The engine cannot serve this model. The message is one sentence for the operator and the caller."""


BACKGROUND = MAX_PRIORITY + 1
"""Priorities from here on are background work, scored when no interactive work waits."""


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
    max_prompt_tokens: int | None = None
    truncation: Truncation = Truncation.END
    priority: int = 0


@dataclass(frozen=True, slots=True)
class BatchScores:
    """The raw score of each document, in order; None for a failed document, with the reason in `errors`.

    `prompt_tokens` counts the tokens that went into the model. `truncated` and `windows` are those of
    shared.contracts.ShardScores.
    """

    scores: list[float | None]
    prompt_tokens: int
    truncated: list[int] = field(default_factory=list)
    windows: dict[int, tuple[int, int]] = field(default_factory=dict)
    errors: dict[int, str] = field(default_factory=dict)


class Pending(Protocol):
    """A batch that an engine has accepted."""

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        """Call back once, from any thread, when `result` no longer blocks."""

    def result(self) -> BatchScores:
        """The scores. Raises what `score` raises."""


class ScoringEngine(Protocol):
    """Scores batches. `score` blocks, and is called from many threads at once.

    An engine that batches continuously also has `begin(batch, cancellation) -> Pending`, which accepts a batch without
    blocking.
    """

    @property
    def scale(self) -> ScoreScale:
        """The scale of the raw scores."""

    @property
    def dtype(self) -> str | None:
        """The precision that the model computes in, such as float32. None for an engine that has none."""

    def score(self, batch: ScoringBatch, cancellation: Cancellation) -> BatchScores:
        """Score one batch.

        Raises EngineError, of which LimitRefused and TextOverLimit before anything is computed, or ScoringAborted soon
        after it was cancelled.
        """

    def close(self) -> None:
        """Release the engine's resources; a waiting `score` raises EngineDied. Safe to call more than once."""
