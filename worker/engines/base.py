"""What every engine promises the worker. Knows nothing of queues, jobs or any model library."""

from dataclasses import dataclass, field
from typing import Protocol

from shared.contracts import ScoreScale


class EngineError(Exception):
    """The engine could not score a batch; the message is one sentence without a document's text in it."""


class EngineStartError(Exception):
    """The engine cannot serve this model; the message is one clear sentence for the operator and the caller."""


@dataclass(frozen=True, slots=True)
class ScoringBatch:
    """One query against documents. `max_tokens_per_doc` None means the model's own limit.

    A lower `priority` is scored sooner, across all batches in the engine.
    """

    query: str
    documents: list[str]
    max_tokens_per_doc: int | None = None
    priority: int = 0


@dataclass(frozen=True, slots=True)
class BatchScores:
    """The model's own score for each document, in order; None where it failed alone, `errors` saying why.

    `prompt_tokens` counts the tokens that went into the model.
    """

    scores: list[float | None]
    prompt_tokens: int
    truncated: list[int] = field(default_factory=list)
    errors: dict[int, str] = field(default_factory=dict)


class ScoringEngine(Protocol):
    """Scores batches. `score` blocks, and is called from many threads at once."""

    @property
    def scale(self) -> ScoreScale:
        """What the raw scores are."""

    def score(self, batch: ScoringBatch) -> BatchScores:
        """Score one batch. Raises EngineError."""

    def close(self) -> None:
        """Free what the engine holds; a `score` still waiting raises EngineError. Safe to call twice."""
