"""Scores by word overlap: deterministic, instant, without a model.

For running and testing the queue without weights. It is not a reranker. Its tokens are words, and it has no limits of
its own.
"""

import re
from collections.abc import Sequence

from shared.contracts import ScoreScale
from worker.engines.base import BatchScores, Cancellation, ScoringAborted, ScoringBatch
from worker.engines.scoring.windows import longest_first
from worker.engines.truncation import check_document, check_length, check_query, keep

_WORD = re.compile(r"\w+")


class LexicalEngine:
    """The share of the query's words that a document contains, 0..1, with a small bonus for shorter documents.

    Each batch takes `delay_seconds`, to simulate the time that a model needs.
    """

    scale = ScoreScale.SIMILARITY
    dtype = None

    def __init__(self, delay_seconds: float = 0.0) -> None:
        self._delay_seconds = delay_seconds

    def score(self, batch: ScoringBatch, cancellation: Cancellation) -> BatchScores:
        words: Sequence[str] = _words(batch.query)
        if batch.max_tokens_per_query is not None:
            check_query(batch, len(words))
            words = keep(words, batch.max_tokens_per_query, batch.truncation)
        documents = [_words(document) for document in batch.documents]
        pairs = [_truncate(batch, position, words, document) for position, document in enumerate(documents)]
        if self._delay_seconds and cancellation.wait(self._delay_seconds):
            raise ScoringAborted
        scores: list[float | None] = []
        truncated: list[int] = []
        tokens = 0
        whole_query = set(words)
        for position, (query_words, document) in enumerate(pairs):
            query = whole_query if len(query_words) == len(words) else set(query_words)
            if len(document) < len(documents[position]) or len(query_words) < len(words):
                truncated.append(position)
            tokens += len(query) + len(document)
            scores.append(_overlap(query, document))
        return BatchScores(scores=scores, prompt_tokens=tokens, truncated=truncated)

    def close(self) -> None:
        """Holds no resources."""


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _truncate(
    batch: ScoringBatch, position: int, query: Sequence[str], document: Sequence[str]
) -> tuple[Sequence[str], Sequence[str]]:
    """The words of query and document that are read. Raises TextOverLimit."""
    if batch.max_tokens_per_doc is not None:
        check_document(batch, position, len(document))
        document = keep(document, batch.max_tokens_per_doc, batch.truncation)
    if batch.max_prompt_tokens is None:
        return query, document
    limit = batch.max_prompt_tokens
    check_length(batch, position, len(query) + len(document), limit, "with the query")
    first, second = longest_first(len(query), len(document), limit)
    return keep(query, first, batch.truncation), keep(document, second, batch.truncation)


def _overlap(query: set[str], words: Sequence[str]) -> float:
    """0 without a common word; 1 when the document has exactly the query's words."""
    found = query & set(words)
    if not found:
        return 0.0
    coverage = len(found) / len(query)
    density = len(found) / len(set(words))
    return round(0.9 * coverage + 0.1 * density, 6)
