"""What all kinds of scoring share: how a batch goes into the engine, and how its scores come back.

Names no library. `ModelView` is what a kind needs to know of the loaded model, and `Prompts` what it hands over.
"""

import math
from collections.abc import Sequence
from typing import Any, Protocol

from shared.contracts import ScoreScale
from worker.engines.base import BatchScores, EngineError, ScoringBatch
from worker.engines.scoring.layouts import Built
from worker.engines.scoring.tokens import TextTokens
from worker.engines.scoring.windows import characters, token_windows, window_overlap

UNREADABLE = "this document cannot be turned into tokens that the model knows"
NOTHING_TO_READ = "nothing of this document is left for the model to read"
NO_SCORE = "the model gave no finite score for this document"

Window = tuple[int, int]


class ModelView(Protocol):
    """The loaded model, as its library shows it."""

    tokens: TextTokens
    max_tokens: int
    """The longest prompt, in tokens."""

    def engine_input(self, ids: list[int], first_typed: int | None = None) -> Any:
        """A prompt for the engine; `first_typed` is where tokens of type 1 begin."""

    def build_single(self, text: str) -> list[int]:
        """The library's own prompt for one text."""

    def build_pair(self, query: str, document: str, instruction: str | None = None) -> Built:
        """The library's own prompt for a pair, never truncated. Raises what the library raises."""

    def build_list(self, query: str, documents: list[str], instruction: str | None) -> list[int]:
        """The library's own prompt for all documents at once."""

    def post_process(self, outputs: list[Any]) -> list[Any]:
        """Outputs of embeddings (the query's first), or of a list, to one output a document, each with a score."""


class Prepared(Protocol):
    """A batch on its way through the engine."""

    inputs: list[Any]
    """What the engine has to compute; may be empty."""

    def scores(self, outputs: list[Any]) -> BatchScores:
        """The batch's scores, given one output for each input. Raises EngineError."""


class Scoring(Protocol):
    """One kind of model. `prepare` is called from many threads at once."""

    scale: ScoreScale

    def prepare(self, batch: ScoringBatch) -> Prepared:
        """Turn a batch into prompts. Raises EngineError."""


class PromptCollector:
    """The prompts of a batch, each a document's or a window's; the best of a document's scores becomes its own."""

    def __init__(self, documents: int) -> None:
        self.inputs: list[Any] = []
        self.truncated: set[int] = set()
        self.errors: dict[int, str] = {}
        self.prompt_tokens = 0
        self._documents = documents
        self._places: list[tuple[int, Window | None]] = []

    def add(self, position: int, engine_input: Any, tokens: int, window: Window | None = None) -> None:
        """One more prompt, of `tokens` tokens; `window` is its characters where the document was cut."""
        self.inputs.append(engine_input)
        self.prompt_tokens += tokens
        self._places.append((position, window))

    def fail(self, position: int, error: str) -> None:
        """The document gets no score, whatever comes back for prompts of it that were added before."""
        self.errors[position] = error
        self.truncated.discard(position)

    def best(self, scores: Sequence[float]) -> BatchScores:
        """The batch's scores; `scores` has one for each prompt, in order, NaN where there is none."""
        best: list[float | None] = [None] * self._documents
        windows: dict[int, Window] = {}
        for (position, window), score in zip(self._places, scores, strict=True):
            kept = best[position]
            if position in self.errors or not math.isfinite(score) or (kept is not None and score <= kept):
                continue
            best[position] = score
            if window is not None:
                windows[position] = window
        for position, kept in enumerate(best):
            if kept is None:
                self.errors.setdefault(position, NO_SCORE)
        return BatchScores(best, self.prompt_tokens, sorted(self.truncated), windows, self.errors)


def read_query(batch: ScoringBatch, ids: list[int] | None) -> list[int]:
    """The query's tokens, within the caller's own limit. Raises EngineError."""
    if ids is None:
        raise EngineError("the query cannot be turned into tokens that the model knows")
    return ids[: batch.max_tokens_per_query]


def parts_of(tokens: int, room: int, batch: ScoringBatch) -> list[tuple[int, int]]:
    """What is read of a document of `tokens` tokens, when the model has room for `room` of them: (first, last + 1).

    One part, or as many windows as it takes and as the caller allows; when the last one ends before `tokens`,
    something is not read. Raises EngineError naming overlap_tokens.
    """
    size = room if batch.max_tokens_per_doc is None else min(room, batch.max_tokens_per_doc)
    if batch.max_chunks_per_doc == 1:
        return [(0, min(tokens, size))]
    return token_windows(tokens, size, window_overlap(batch.overlap_tokens, size), batch.max_chunks_per_doc)


class PreparedPrompts:
    """A batch whose every prompt is scored by itself."""

    def __init__(self, gathering: PromptCollector) -> None:
        self.inputs = gathering.inputs
        self._gathering = gathering

    def scores(self, outputs: list[Any]) -> BatchScores:
        return self._gathering.best([scalar(output) for output in outputs])


def scalar(output: Any) -> float:
    """The one number in a scored output: in a pooled tensor for a cross-encoder, bare otherwise. NaN if it failed."""
    if output.error is not None:
        return math.nan
    return float(getattr(output.outputs, "data", output.outputs))


def cut_text(tokens: TextTokens, text: str, length: int, keep: int) -> str:
    """The beginning of a text of `length` tokens that holds its first `keep` tokens."""
    if keep >= length:
        return text
    return text[: characters(tokens.offsets(text), 0, keep)[1]] if keep else ""
