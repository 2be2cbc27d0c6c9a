"""Scores by word overlap: deterministic, instant, without a model.

For running and testing the queue without weights. It is not a reranker.
"""

import re

from shared.contracts import ScoreScale
from worker.engines.base import BatchScores, Cancellation, ScoringAborted, ScoringBatch

_WORD = re.compile(r"\w+")


class LexicalEngine:
    """The share of the query's words that a document contains, 0..1, with a small bonus for shorter documents.

    Each batch takes `delay_seconds`, to simulate the time that a model needs.
    """

    scale = ScoreScale.SIMILARITY

    def __init__(self, delay_seconds: float = 0.0) -> None:
        self._delay_seconds = delay_seconds

    def score(self, batch: ScoringBatch, cancellation: Cancellation) -> BatchScores:
        if self._delay_seconds and cancellation.wait(self._delay_seconds):
            raise ScoringAborted
        query = set(_words(batch.query))
        scores: list[float | None] = []
        truncated: list[int] = []
        tokens = 0
        for position, document in enumerate(batch.documents):
            words = _words(document)
            if batch.max_tokens_per_doc is not None and len(words) > batch.max_tokens_per_doc:
                words = words[: batch.max_tokens_per_doc]
                truncated.append(position)
            tokens += len(query) + len(words)
            scores.append(_overlap(query, words))
        return BatchScores(scores=scores, prompt_tokens=tokens, truncated=truncated)

    def close(self) -> None:
        """Holds no resources."""


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _overlap(query: set[str], words: list[str]) -> float:
    """0 without a common word; 1 when the document has exactly the query's words."""
    found = query & set(words)
    if not found:
        return 0.0
    coverage = len(found) / len(query)
    density = len(found) / len(set(words))
    return round(0.9 * coverage + 0.1 * density, 6)
