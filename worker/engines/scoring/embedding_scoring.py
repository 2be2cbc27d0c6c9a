"""Bi-encoders: query and documents are embedded separately, and a score is the cosine between them.

Recent embeddings are cached, so that a repeated document is neither tokenized nor computed again. Equal texts of a
batch are embedded once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.contracts import ScoreScale
from worker.engines.base import BatchScores, EngineError, ScoringBatch
from worker.engines.scoring.base import (
    NO_SCORE,
    NO_TOKENS,
    NOT_TOKENIZABLE,
    WITH_SPECIAL,
    ModelView,
    Window,
    document_offsets,
    is_cut,
    read_documents,
    read_query,
    split_document,
)
from worker.engines.scoring.embeddings import Embedded, EmbeddingCache, cosines, text_key, unit_vectors
from worker.engines.scoring.layouts import Layout
from worker.engines.scoring.templates import check_instruction
from worker.engines.scoring.windows import character_range
from worker.engines.truncation import check_length, keep, prompt_limit


@dataclass(frozen=True, slots=True)
class _Pending:
    """A text that is being embedded by inputs `first` to `end` - 1."""

    first: int
    end: int
    windows: list[Window] | None
    truncated: bool


class EmbeddingScoring:
    """Scores are cosines."""

    scale = ScoreScale.SIMILARITY

    def __init__(self, model: ModelView, layout: Layout, cache: EmbeddingCache) -> None:
        self._model = model
        self._layout = layout
        self._cache = cache

    def prepare(self, batch: ScoringBatch) -> "_PreparedTexts":
        check_instruction(batch.instruction, None)
        limit = prompt_limit(batch, self._model.max_tokens, self._layout.special_tokens)
        # The key includes everything that decides where a text is divided.
        common = (batch.max_prompt_tokens, batch.truncation.value)
        query_key = text_key(batch.query, batch.max_tokens_per_query, 1, None, *common)
        overlap = batch.overlap_tokens if batch.max_chunks_per_doc > 1 else None
        cuts = (batch.max_tokens_per_doc, batch.max_chunks_per_doc, overlap, *common)
        keys = [text_key(text, *cuts) for text in batch.documents]
        found = self._cache.find([query_key, *keys])
        prepared = _PreparedTexts(self._cache, query_key, keys, found)
        missing: dict[bytes, int] = {}
        for position, key in enumerate(keys):
            if key not in found:
                missing.setdefault(key, position)
        if query_key not in found:
            (ids,) = self._model.tokens.ids([batch.query])
            self._add_query(prepared, batch, read_query(batch, ids), limit)
            missing.pop(query_key, None)
        texts = [batch.documents[position] for position in missing.values()]
        documents = read_documents(self._model.tokens, batch, texts, limit - self._layout.special_tokens)
        for (key, position), document in zip(missing.items(), documents, strict=True):
            if document is None:
                prepared.errors[key] = NOT_TOKENIZABLE
            else:
                self._add_document(prepared, batch, key, position, document, limit)
        return prepared

    def _add_query(self, prepared: "_PreparedTexts", batch: ScoringBatch, ids: Sequence[int], limit: int) -> None:
        special = self._layout.special_tokens
        check_length(batch, "query", len(ids) + special, limit, WITH_SPECIAL)
        kept = self._layout.single(keep(ids, limit - special, batch.truncation))
        if not kept:
            raise EngineError("the query has no tokens for the model to read")
        is_truncated = len(ids) + special > limit
        prepared.add(prepared.query, [self._model.engine_input(kept)], len(kept), None, is_truncated)

    def _add_document(
        self,
        prepared: "_PreparedTexts",
        batch: ScoringBatch,
        key: bytes,
        position: int,
        document: list[int],
        limit: int,
    ) -> None:
        special = self._layout.special_tokens
        parts = split_document(batch, position, len(document), limit - special, special)
        prompts = [self._layout.single(document[start:end]) for start, end in parts]
        if not prompts[0]:
            prepared.errors[key] = NO_TOKENS
            return
        windows = None
        if len(parts) > 1:
            offsets = document_offsets(self._model.tokens, batch, batch.documents[position], limit - special)
            windows = [character_range(offsets, start, end) for start, end in parts]
        inputs = [self._model.engine_input(prompt) for prompt in prompts]
        prepared.add(key, inputs, sum(map(len, prompts)), windows, is_cut(parts, len(document)))


class _PreparedTexts:
    """The texts of a batch, by key: cached, being embedded, or failed."""

    def __init__(
        self, cache: EmbeddingCache, query: bytes, documents: list[bytes], known: dict[bytes, Embedded]
    ) -> None:
        self.inputs: list[Any] = []
        self.query = query
        self.errors: dict[bytes, str] = {}
        self._cache = cache
        self._documents = documents
        self._known = known
        self._pending: dict[bytes, _Pending] = {}
        self._prompt_tokens = 0

    def add(self, key: bytes, inputs: list[Any], tokens: int, windows: list[Window] | None, truncated: bool) -> None:
        first = len(self.inputs)
        self.inputs += inputs
        self._prompt_tokens += tokens
        self._pending[key] = _Pending(first, len(self.inputs), windows, truncated)

    def scores(self, outputs: list[Any]) -> BatchScores:
        if outputs:
            self._store([_numbers(output) for output in outputs])
        if (query := self._known.get(self.query)) is None:
            raise EngineError("the model gave no finite embedding for the query")
        scored = [position for position, key in enumerate(self._documents) if key in self._known]
        entries = [self._known[self._documents[position]] for position in scored]
        scores: list[float | None] = [None] * len(self._documents)
        windows: dict[int, Window] = {}
        for position, entry, (score, window) in zip(scored, entries, cosines(query.vectors, entries), strict=True):
            scores[position] = score
            if entry.windows is not None:
                windows[position] = entry.windows[window]
        return BatchScores(
            scores,
            self._prompt_tokens,
            [position for position, entry in zip(scored, entries, strict=True) if entry.truncated or query.truncated],
            windows,
            {p: self.errors.get(key, NO_SCORE) for p, key in enumerate(self._documents) if key not in self._known},
        )

    def _store(self, rows: list[Any]) -> None:
        """Convert the engine's outputs to cache entries; texts with non-finite outputs get none."""
        for key, pending in self._pending.items():
            vectors = [row for row in rows[pending.first : pending.end] if row is not None]
            if len(vectors) != pending.end - pending.first:
                continue
            entry = Embedded(unit_vectors(vectors), pending.windows, pending.truncated)
            self._known[key] = entry
            self._cache.put(key, entry)


def _numbers(output: Any) -> Any | None:
    """An output's embedding as a float32 array; None when it failed."""
    if output.error is not None:
        return None
    numbers = output.outputs.data.float().cpu().numpy()
    return numbers if np.isfinite(numbers).all() else None
