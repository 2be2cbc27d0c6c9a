"""Late interaction: every token is embedded, and a score is the sum of each query token's best match.

The library compares the embeddings. A score grows with the length of the query, so scores of different requests cannot
be compared.
"""

from typing import Any

from shared.contracts import ScoreScale
from worker.engines.base import BatchScores, EngineError, ScoringBatch
from worker.engines.scoring.base import (
    NO_TOKENS,
    NOT_TOKENIZABLE,
    WITH_SPECIAL,
    ModelView,
    PromptCollector,
    document_offsets,
    is_cut,
    read_documents,
    read_query,
    scalar,
    split_document,
)
from worker.engines.scoring.layouts import Layout
from worker.engines.scoring.templates import check_instruction
from worker.engines.scoring.windows import character_range
from worker.engines.truncation import check_length, keep, prompt_limit


class LateScoring:
    """Scores are sums of cosines."""

    scale = ScoreScale.SIMILARITY

    def __init__(self, model: ModelView, layout: Layout) -> None:
        self._model = model
        self._layout = layout

    def prepare(self, batch: ScoringBatch) -> "_PreparedLate":
        check_instruction(batch.instruction, None)
        (ids,) = self._model.tokens.ids([batch.query])
        query_ids = read_query(batch, ids)
        special = self._layout.special_tokens
        limit = prompt_limit(batch, self._model.max_tokens, special)
        check_length(batch, "query", len(query_ids) + special, limit, WITH_SPECIAL)
        budget = limit - special
        query = self._layout.single(keep(query_ids, budget, batch.truncation))
        if not query:
            raise EngineError("the query has no tokens for the model to read")
        documents = read_documents(self._model.tokens, batch, batch.documents, budget)
        collector = PromptCollector(len(documents))
        for position, document in enumerate(documents):
            if document is None:
                collector.fail(position, NOT_TOKENIZABLE)
                continue
            if len(query_ids) > budget:
                collector.truncated.add(position)
            self._add(collector, batch, position, document, budget)
        return _PreparedLate(self._model, query, collector)

    def _add(
        self, collector: PromptCollector, batch: ScoringBatch, position: int, document: list[int], budget: int
    ) -> None:
        parts = split_document(batch, position, len(document), budget, self._layout.special_tokens)
        if is_cut(parts, len(document)):
            collector.truncated.add(position)
        offsets = None
        if len(parts) > 1:
            offsets = document_offsets(self._model.tokens, batch, batch.documents[position], budget)
        for start, end in parts:
            if not (ids := self._layout.single(document[start:end])):
                collector.fail(position, NO_TOKENS)
                return
            window = None if offsets is None else character_range(offsets, start, end)
            collector.add(position, self._model.engine_input(ids), len(ids), window)


class _PreparedLate:
    def __init__(self, model: ModelView, query: list[int], collector: PromptCollector) -> None:
        self._model = model
        self._collector = collector
        self.inputs: list[Any] = []
        if collector.inputs:
            self.inputs = [model.engine_input(query), *collector.inputs]
            collector.prompt_tokens += len(query)

    def scores(self, outputs: list[Any]) -> BatchScores:
        matches = self._model.post_process(outputs) if outputs else []
        return self._collector.best([scalar(match) for match in matches])
