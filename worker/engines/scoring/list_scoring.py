"""Listwise models: all documents of a batch are in one prompt, and are compared with each other.

The library renders the prompt and reads its scores. When the documents exceed one prompt, the longest ones are
truncated until all fit; none is left out, because a document's score depends on the others. There are no windows:
`max_chunks_per_doc` is only an upper limit.
"""

import dataclasses
from typing import Any

from shared.contracts import ScoreScale, Truncation
from worker.engines.base import BatchScores, LimitRefused, ScoringBatch
from worker.engines.scoring.base import (
    NOT_TOKENIZABLE,
    ModelView,
    PromptCollector,
    read_documents,
    read_query,
    scalar,
    truncate_text,
)
from worker.engines.scoring.windows import fair_share
from worker.engines.truncation import PROMPT_LIMIT, check_document, check_length, prompt_limit

_QUERY_SHARE = 4
"""The query may take a quarter of the prompt, which contains it twice."""
_ATTEMPTS = 4
_IN_ONE_PROMPT = "together, with the query and special tokens, in one prompt"


class ListScoring:
    """Scores are cosines."""

    scale = ScoreScale.SIMILARITY

    def __init__(self, model: ModelView) -> None:
        self._model = model

    def prepare(self, batch: ScoringBatch) -> "_PreparedList":
        (ids,) = self._model.tokens.ids([batch.query])
        query_ids = read_query(batch, ids)
        limit = prompt_limit(batch, self._model.max_tokens)
        documents = read_documents(self._model.tokens, batch, batch.documents, limit)
        kept = len(query_ids)
        if batch.truncation is not Truncation.NONE:
            kept = min(kept, limit // _QUERY_SHARE)
        query = truncate_text(self._model.tokens, batch.query, len(ids or ()), kept, batch.truncation)
        collector = PromptCollector(len(documents))
        lengths: dict[int, int] = {}
        for position, document in enumerate(documents):
            if document is None:
                collector.fail(position, NOT_TOKENIZABLE)
            else:
                check_document(batch, position, len(document))
                lengths[position] = len(document)
        if kept < len(query_ids):
            collector.truncated.update(lengths)
        prompt = self._prompt(collector, batch, query, lengths, limit) if lengths else []
        return _PreparedList(self._model, prompt, collector, list(lengths))

    def _prompt(
        self, collector: PromptCollector, batch: ScoringBatch, query: str, lengths: dict[int, int], limit: int
    ) -> list[int]:
        """One prompt with every readable document, truncated as little as possible. Raises LimitRefused."""
        if batch.truncation is Truncation.NONE:
            whole = self._model.build_list(
                query, [batch.documents[position] for position in lengths], batch.instruction
            )
            check_length(batch, "documents", len(whole), limit, _IN_ONE_PROMPT)
            return whole
        own = batch.max_tokens_per_doc
        wanted = [length if own is None else min(length, own) for length in lengths.values()]
        empty_prompt = self._model.build_list(query, [""] * len(wanted), batch.instruction)
        budget = limit - len(empty_prompt)
        for _ in range(_ATTEMPTS):
            share = fair_share(wanted, budget)
            if share < min(1, max(wanted)):
                break
            cuts = {position: min(length, share) for position, length in zip(lengths, wanted, strict=True)}
            texts = [
                truncate_text(self._model.tokens, batch.documents[position], lengths[position], cut, batch.truncation)
                for position, cut in cuts.items()
            ]
            ids = self._model.build_list(query, texts, batch.instruction)
            if (excess := len(ids) - limit) <= 0:
                collector.truncated.update(position for position, cut in cuts.items() if cut < lengths[position])
                return ids
            # Joined texts may become a few more tokens than the texts alone.
            budget = min(budget, sum(cuts.values())) - excess - len(wanted)
        reason = f"{len(wanted)} documents do not fit into one prompt of {limit} tokens"
        if batch.max_prompt_tokens is not None:
            raise LimitRefused(f"{PROMPT_LIMIT}: {reason}", param=PROMPT_LIMIT)
        raise LimitRefused(f"{reason}, and this model reads all documents at once", param="documents")


class _PreparedList:
    def __init__(self, model: ModelView, prompt: list[int], collector: PromptCollector, positions: list[int]) -> None:
        self._model = model
        self._collector = collector
        self._positions = positions
        self._prompt_tokens = len(prompt)
        self.inputs: list[Any] = [model.engine_input(prompt)] if prompt else []

    def scores(self, outputs: list[Any]) -> BatchScores:
        for position in self._positions:
            self._collector.add(position, None, 0)
        if any(output.error is not None for output in outputs):
            return self._collector.best([float("nan")] * len(self._positions))
        scored = self._model.post_process(outputs) if outputs else []
        best = self._collector.best([scalar(output) for output in scored])
        return dataclasses.replace(best, prompt_tokens=self._prompt_tokens)
