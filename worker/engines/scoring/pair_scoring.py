"""Cross-encoders that read query and document as a pair with special tokens around them.

The common and performance-critical case: a prompt is two token lists in a learned layout. Texts are truncated as
tokens, so that no prompt exceeds the model's limit and nothing is tokenized twice.
"""

from shared.contracts import ScoreScale
from worker.engines.base import ScoringBatch
from worker.engines.scoring.base import (
    NOT_TOKENIZABLE,
    ModelView,
    PreparedPrompts,
    PromptCollector,
    read_query,
    split_document,
)
from worker.engines.scoring.layouts import Layout
from worker.engines.scoring.templates import check_instruction
from worker.engines.scoring.windows import character_range, longest_first


class PairScoring:
    """Scores are logits."""

    scale = ScoreScale.LOGIT

    def __init__(self, model: ModelView, layout: Layout) -> None:
        self._model = model
        self._layout = layout
        self._budget = model.max_tokens - layout.special_tokens

    def prepare(self, batch: ScoringBatch) -> PreparedPrompts:
        check_instruction(batch.instruction, None)
        ids, *documents = self._model.tokens.ids([batch.query, *batch.documents])
        query = read_query(batch, ids)
        collector = PromptCollector(len(documents))
        add = self._add_whole if batch.max_chunks_per_doc == 1 else self._add_windows
        for position, document in enumerate(documents):
            if document is None:
                collector.fail(position, NOT_TOKENIZABLE)
            else:
                add(collector, batch, query, position, document)
        return PreparedPrompts(collector)

    def _add_whole(
        self, collector: PromptCollector, batch: ScoringBatch, query: list[int], position: int, document: list[int]
    ) -> None:
        """Add one prompt. When the pair is too long for the model, the longer text is truncated first."""
        kept = document[: batch.max_tokens_per_doc]
        first, second = longest_first(len(query), len(kept), self._budget)
        if second < len(document) or first < len(query):
            collector.truncated.add(position)
        ids, first_typed = self._layout.pair(query[:first], kept[:second])
        collector.add(position, self._model.engine_input(ids, first_typed), len(ids))

    def _add_windows(
        self, collector: PromptCollector, batch: ScoringBatch, query: list[int], position: int, document: list[int]
    ) -> None:
        """Add one prompt per window, up to the limit; the query takes at most half of the available tokens."""
        fits = len(query) + len(document) <= self._budget
        kept_query = query if fits else query[: self._budget // 2]
        parts = split_document(len(document), self._budget - len(kept_query), batch)
        if parts[-1][1] < len(document) or len(kept_query) < len(query):
            collector.truncated.add(position)
        offsets = self._model.tokens.offsets(batch.documents[position]) if len(parts) > 1 else None
        for start, end in parts:
            ids, first_typed = self._layout.pair(kept_query, document[start:end])
            window = None if offsets is None else character_range(offsets, start, end)
            collector.add(position, self._model.engine_input(ids, first_typed), len(ids), window)
