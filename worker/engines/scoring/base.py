"""What all kinds of scoring share: turning a batch into prompts, and outputs into scores.

Imports no engine library: `ModelView` is the interface to the loaded model.
"""

import math
from collections.abc import Sequence
from typing import Any, Protocol

from shared.contracts import ScoreScale, Truncation
from worker.engines.base import BatchScores, EngineError, ScoringBatch
from worker.engines.scoring.layouts import PromptTokens
from worker.engines.scoring.tokens import Offsets, TextTokens
from worker.engines.scoring.windows import character_range, token_windows, window_overlap
from worker.engines.truncation import check_document, check_length, check_query, keep, kept_range

NOT_TOKENIZABLE = "this document cannot be tokenized for this model"
NO_TOKENS = "this document has no tokens for the model to read"
NO_SCORE = "the model gave no finite score for this document"
WITH_SPECIAL = "with special tokens"
WITH_QUERY = "with the query and special tokens"
BESIDE_WINDOWS = "in the query, which may take half of the prompt beside a window"

Window = tuple[int, int]


class ModelView(Protocol):
    """The loaded model, as the kinds of scoring see it."""

    tokens: TextTokens
    max_tokens: int
    """The longest prompt, in tokens."""

    def engine_input(self, ids: list[int], first_typed: int | None = None) -> Any:
        """A prompt for the engine; `first_typed` is where tokens of type 1 begin."""

    def build_single(self, text: str) -> list[int]:
        """The library's own prompt for one text."""

    def build_pair(self, query: str, document: str, instruction: str | None = None) -> PromptTokens:
        """The library's own prompt for a pair, never truncated. Raises what the library raises."""

    def build_list(self, query: str, documents: list[str], instruction: str | None) -> list[int]:
        """The library's own prompt for all documents at once."""

    def post_process(self, outputs: list[Any]) -> list[Any]:
        """Convert outputs of embeddings (the query's first) or of a list to one scored output per document."""


class Prepared(Protocol):
    """A batch rendered to prompts."""

    inputs: list[Any]
    """The engine's inputs; may be empty."""

    def scores(self, outputs: list[Any]) -> BatchScores:
        """The batch's scores, given one output for each input. Raises EngineError."""


class Scoring(Protocol):
    """Scoring for one kind of model. `prepare` is called from many threads concurrently."""

    scale: ScoreScale

    def prepare(self, batch: ScoringBatch) -> Prepared:
        """Turn a batch into prompts. Raises EngineError."""


class PromptCollector:
    """Collects the prompts of a batch, one per document or window; a document's score is the best of its prompts."""

    def __init__(self, documents: int) -> None:
        self.inputs: list[Any] = []
        self.truncated: set[int] = set()
        self.errors: dict[int, str] = {}
        self.prompt_tokens = 0
        self._documents = documents
        self._origins: list[tuple[int, Window | None]] = []

    def add(self, position: int, engine_input: Any, tokens: int, window: Window | None = None) -> None:
        """Add a prompt of `tokens` tokens; `window` is its character range when the document was divided."""
        self.inputs.append(engine_input)
        self.prompt_tokens += tokens
        self._origins.append((position, window))

    def fail(self, position: int, error: str) -> None:
        """Give the document an error instead of a score, even if prompts of it were added before."""
        self.errors[position] = error
        self.truncated.discard(position)

    def best(self, scores: Sequence[float]) -> BatchScores:
        """The batch's scores; `scores` has one per prompt, in order, NaN for failed ones."""
        best: list[float | None] = [None] * self._documents
        windows: dict[int, Window] = {}
        for (position, window), score in zip(self._origins, scores, strict=True):
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


def read_query(batch: ScoringBatch, ids: list[int] | None) -> Sequence[int]:
    """The query's tokens, within the caller's own limit. Raises EngineError."""
    if ids is None:
        raise EngineError("the query cannot be tokenized for this model")
    if (limit := batch.max_tokens_per_query) is None:
        return ids
    check_query(batch, len(ids))
    return keep(ids, limit, batch.truncation)


def read_documents(
    tokens: TextTokens, batch: ScoringBatch, texts: Sequence[str], budget: int
) -> list[list[int] | None]:
    """The tokens of each document.

    Of a document that is too long for its windows of `budget` tokens it may be only the first or last ones, whichever
    the batch keeps, but more than fit.
    """
    at_most, keep_end = _wanted(batch, budget)
    return tokens.ids(texts, at_most, keep_end=keep_end)


def document_offsets(tokens: TextTokens, batch: ScoringBatch, text: str, budget: int) -> Offsets:
    """The character range of each token that `read_documents` returns for this document and budget."""
    at_most, keep_end = _wanted(batch, budget)
    return tokens.offsets(text, at_most, keep_end=keep_end)


def _wanted(batch: ScoringBatch, budget: int) -> tuple[int | None, bool]:
    """How many tokens of a document are read at most, and whether these are its last ones."""
    if batch.truncation is Truncation.NONE:
        # The error names the length of a document.
        return None, False
    return budget * batch.max_chunks_per_doc, batch.truncation is Truncation.START


def split_document(
    batch: ScoringBatch, position: int, tokens: int, max_tokens: int, other_tokens: int = 0
) -> list[tuple[int, int]]:
    """The windows of a document of `tokens` tokens, at most `max_tokens` tokens each, as (first, last + 1).

    One window, or as many as the document needs and the caller allows. When these are too few, they begin at the
    document's first token, or end at its last one when its beginning is cut off; see `is_cut`. A window's prompt has
    `other_tokens` besides. Raises LimitRefused naming overlap_tokens, or TextOverLimit.
    """
    size = max_tokens if batch.max_tokens_per_doc is None else min(max_tokens, batch.max_tokens_per_doc)
    if batch.max_chunks_per_doc == 1:
        check_document(batch, position, tokens)
        check_length(batch, position, tokens + other_tokens, max_tokens + other_tokens, WITH_SPECIAL)
        return [kept_range(tokens, size, batch.truncation)]
    overlap = window_overlap(batch.overlap_tokens, size)
    windows = token_windows(tokens, size, overlap, batch.max_chunks_per_doc)
    read = windows[-1][1]
    check_length(batch, position, tokens, read, "in the document", f"the limit of {len(windows)} windows")
    unread = tokens - read if batch.truncation is Truncation.START else 0
    return [(start + unread, end + unread) for start, end in windows] if unread else windows


def is_cut(windows: Sequence[tuple[int, int]], tokens: int) -> bool:
    """Whether the windows leave out the beginning or the end of a document of `tokens` tokens."""
    return windows[0][0] > 0 or windows[-1][1] < tokens


class PreparedPrompts:
    """A batch whose prompts are scored independently."""

    def __init__(self, collector: PromptCollector) -> None:
        self.inputs = collector.inputs
        self._collector = collector

    def scores(self, outputs: list[Any]) -> BatchScores:
        return self._collector.best([scalar(output) for output in outputs])


def scalar(output: Any) -> float:
    """The number in a scored output: a pooled tensor for a cross-encoder, a plain number otherwise.

    NaN if it failed.
    """
    if output.error is not None:
        return math.nan
    return float(getattr(output.outputs, "data", output.outputs))


def truncate_text(tokens: TextTokens, text: str, length: int, count: int, truncation: Truncation) -> str:
    """The part of a text of `length` tokens that holds `count` of them: its beginning, or its end."""
    if count >= length:
        return text
    if not count:
        return ""
    offsets = tokens.offsets(text, count, keep_end=truncation is Truncation.START)
    start, end = character_range(offsets, *kept_range(len(offsets), count, truncation))
    return text[start:] if truncation is Truncation.START else text[:end]
