"""Cross-encoders that read query and document as a pair with special tokens around them.

The common and performance-critical case: a prompt is two token lists in a learned layout. Texts are truncated as
tokens, so that no prompt exceeds the model's limit and nothing is tokenized twice.
"""

from collections.abc import Sequence

from shared.contracts import ScoreScale
from worker.engines.base import ScoringBatch
from worker.engines.scoring.base import (
    BESIDE_WINDOWS,
    NOT_TOKENIZABLE,
    WITH_QUERY,
    WITH_SPECIAL,
    ModelView,
    PreparedPrompts,
    PromptCollector,
    document_offsets,
    is_cut,
    read_documents,
    read_query,
    split_document,
)
from worker.engines.scoring.layouts import Layout
from worker.engines.scoring.templates import check_instruction
from worker.engines.scoring.windows import character_range, longest_first
from worker.engines.truncation import check_document, check_length, keep, prompt_limit


class PairScoring:
    """Scores are logits."""

    scale = ScoreScale.LOGIT

    def __init__(self, model: ModelView, layout: Layout) -> None:
        self._model = model
        self._layout = layout
        self._special = layout.special_tokens

    def prepare(self, batch: ScoringBatch) -> PreparedPrompts:
        check_instruction(batch.instruction, None)
        (ids,) = self._model.tokens.ids([batch.query])
        query = read_query(batch, ids)
        limit = prompt_limit(batch, self._model.max_tokens, self._special)
        check_length(batch, "query", len(query) + self._special, limit, WITH_SPECIAL)
        budget = limit - self._special
        documents = read_documents(self._model.tokens, batch, batch.documents, _read_tokens(query, budget))
        collector = PromptCollector(len(documents))
        add = self._add_whole if batch.max_chunks_per_doc == 1 else self._add_windows
        for position, document in enumerate(documents):
            if document is None:
                collector.fail(position, NOT_TOKENIZABLE)
            else:
                add(collector, batch, query, position, document, budget)
        return PreparedPrompts(collector)

    def _add_whole(
        self,
        collector: PromptCollector,
        batch: ScoringBatch,
        query: Sequence[int],
        position: int,
        document: Sequence[int],
        budget: int,
    ) -> None:
        """Add one prompt. When the pair is too long, the longer text is truncated first."""
        tokens, limit = len(document), batch.max_tokens_per_doc
        wanted = tokens if limit is None else min(tokens, limit)
        first, second = longest_first(len(query), wanted, budget)
        if second < tokens or first < len(query):
            check_document(batch, position, tokens)
            check_length(batch, position, len(query) + tokens + self._special, budget + self._special, WITH_QUERY)
            collector.truncated.add(position)
            query, document = keep(query, first, batch.truncation), keep(document, second, batch.truncation)
        ids, first_typed = self._layout.pair(query, document)
        collector.add(position, self._model.engine_input(ids, first_typed), len(ids))

    def _add_windows(
        self,
        collector: PromptCollector,
        batch: ScoringBatch,
        query: Sequence[int],
        position: int,
        document: Sequence[int],
        budget: int,
    ) -> None:
        """Add one prompt per window, up to the limit; the query takes at most half of the available tokens."""
        tokens, kept_query = len(document), query
        if len(query) + tokens > budget:
            check_length(batch, "query", len(query), budget // 2, BESIDE_WINDOWS)
            kept_query = keep(query, budget // 2, batch.truncation)
        parts = split_document(batch, position, tokens, budget - len(kept_query))
        if is_cut(parts, tokens) or len(kept_query) < len(query):
            collector.truncated.add(position)
        offsets = None
        if len(parts) > 1:
            text = batch.documents[position]
            offsets = document_offsets(self._model.tokens, batch, text, _read_tokens(query, budget))
        for start, end in parts:
            ids, first_typed = self._layout.pair(kept_query, document[start:end])
            window = None if offsets is None else character_range(offsets, start, end)
            collector.add(position, self._model.engine_input(ids, first_typed), len(ids), window)


def _read_tokens(query: Sequence[int], budget: int) -> int:
    # Which of the two texts is the longer one decides how both are truncated.
    return max(len(query), budget)
