"""Language models that rerank: cross-encoders whose prompt is running text, with or without a score template.

The library renders every prompt. Texts are truncated before rendering, never the prompt itself, because its end asks
the model for the answer.
"""

from shared.contracts import ScoreScale, Truncation
from worker.engines.base import EngineError, ScoringBatch, TextOverLimit
from worker.engines.scoring.base import (
    BESIDE_WINDOWS,
    NOT_TOKENIZABLE,
    WITH_QUERY,
    ModelView,
    PreparedPrompts,
    PromptCollector,
    Window,
    document_offsets,
    is_cut,
    read_documents,
    read_query,
    split_document,
    truncate_text,
)
from worker.engines.scoring.layouts import PromptTokens
from worker.engines.scoring.templates import check_instruction
from worker.engines.scoring.windows import character_range
from worker.engines.truncation import check_document, check_length, keep, prompt_limit

RESERVED_TOKENS = 8
"""Tokens that stay unused: truncating a text or joining it with the prompt may add a few tokens."""
_ATTEMPTS = 4


class PromptScoring:
    """Scores are logits."""

    scale = ScoreScale.LOGIT

    def __init__(self, model: ModelView, template: str | None) -> None:
        self._model = model
        self._template = template

    def prepare(self, batch: ScoringBatch) -> PreparedPrompts:
        check_instruction(batch.instruction, self._template)
        (ids,) = self._model.tokens.ids([batch.query])
        query_ids = read_query(batch, ids)
        budget = self._budget(batch)
        documents = read_documents(self._model.tokens, batch, batch.documents, budget)
        query = query_ids
        if batch.truncation is not Truncation.NONE:
            query = keep(query_ids, budget // 2, batch.truncation)
        elif batch.max_chunks_per_doc > 1:
            check_length(batch, "query", len(query), budget // 2, BESIDE_WINDOWS)
        text = truncate_text(self._model.tokens, batch.query, len(ids or ()), len(query), batch.truncation)
        collector = PromptCollector(len(documents))
        for position, document in enumerate(documents):
            if document is None:
                collector.fail(position, NOT_TOKENIZABLE)
                continue
            if len(query) < len(query_ids):
                collector.truncated.add(position)
            self._add(collector, batch, text, position, len(document), budget - len(query), budget)
        return PreparedPrompts(collector)

    def _budget(self, batch: ScoringBatch) -> int:
        """How many tokens query and document may have together. Raises EngineError."""
        empty_prompt, _ = self._model.build_pair("", "", batch.instruction)
        reserved = len(empty_prompt) + RESERVED_TOKENS
        budget = prompt_limit(batch, self._model.max_tokens, reserved) - reserved
        if budget < 2:
            raise EngineError(
                f"the instruction leaves no space for query and document in the model's {self._model.max_tokens} tokens"
            )
        return budget

    def _add(
        self,
        collector: PromptCollector,
        batch: ScoringBatch,
        query: str,
        position: int,
        tokens: int,
        budget: int,
        read_budget: int,
    ) -> None:
        document = batch.documents[position]
        if batch.truncation is Truncation.NONE and batch.max_chunks_per_doc == 1:
            # The rendered prompt decides whether it fits.
            check_document(batch, position, tokens)
            parts = [(0, tokens)]
        else:
            parts = split_document(batch, position, tokens, budget)
        whole = parts == [(0, tokens)]
        offsets = [] if whole else document_offsets(self._model.tokens, batch, document, read_budget)
        for part in parts:
            try:
                (ids, first_typed), read = self._render_within_limit(batch, query, position, offsets, *part)
            except TextOverLimit:
                raise
            except Exception:
                # The library fails on this text: only this document fails.
                collector.fail(position, NOT_TOKENIZABLE)
                return
            if read != part:
                collector.truncated.add(position)
            window = character_range(offsets, *read) if len(parts) > 1 else None
            collector.add(position, self._model.engine_input(ids, first_typed), len(ids), window)
        if is_cut(parts, tokens):
            collector.truncated.add(position)

    def _render_within_limit(
        self, batch: ScoringBatch, query: str, position: int, offsets: list[tuple[int, int]], start: int, end: int
    ) -> tuple[PromptTokens, Window]:
        """The prompt of a part of the document, and that part, which may have been shortened."""
        document = batch.documents[position]
        limit = prompt_limit(batch, self._model.max_tokens)
        for _ in range(_ATTEMPTS):
            first, last = character_range(offsets, start, end) if offsets else (0, len(document))
            built = self._model.build_pair(query, document[first:last], batch.instruction)
            excess = len(built[0]) - limit
            if excess <= 0:
                return built, (start, end)
            check_length(batch, position, len(built[0]), limit, WITH_QUERY)
            offsets = offsets or self._model.tokens.offsets(document)
            if batch.truncation is Truncation.START:
                start = min(end - 1, start + excess + RESERVED_TOKENS)
            else:
                end = max(start + 1, end - excess - RESERVED_TOKENS)
        raise ValueError("the prompt stays too long")
