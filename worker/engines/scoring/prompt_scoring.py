"""Language models that rerank: cross-encoders whose prompt is running text, with or without a score template.

The library renders every prompt. Texts are truncated before rendering, never the prompt itself, because its end asks
the model for the answer.
"""

from shared.contracts import ScoreScale
from worker.engines.base import EngineError, ScoringBatch
from worker.engines.scoring.base import (
    UNREADABLE,
    ModelView,
    PreparedPrompts,
    PromptCollector,
    cut_text,
    parts_of,
    read_query,
)
from worker.engines.scoring.layouts import Built
from worker.engines.scoring.templates import check_instruction
from worker.engines.scoring.windows import characters

JOINTS = 8
"""Reserved tokens: where texts join the prompt or were truncated, they may become a few more tokens."""
_TRIES = 4


class PromptScoring:
    """Scores are logits."""

    scale = ScoreScale.LOGIT

    def __init__(self, model: ModelView, template: str | None) -> None:
        self._model = model
        self._template = template

    def prepare(self, batch: ScoringBatch) -> PreparedPrompts:
        check_instruction(batch.instruction, self._template)
        ids, *documents = self._model.tokens.ids([batch.query, *batch.documents])
        asked = read_query(batch, ids)
        room = self._room(batch)
        query = asked[: room // 2]
        text = cut_text(self._model.tokens, batch.query, len(ids or ()), len(query))
        collector = PromptCollector(len(documents))
        for position, document in enumerate(documents):
            if document is None:
                collector.fail(position, UNREADABLE)
                continue
            if len(query) < len(asked):
                collector.truncated.add(position)
            self._add(collector, batch, text, position, len(document), room - len(query))
        return PreparedPrompts(collector)

    def _room(self, batch: ScoringBatch) -> int:
        """How many tokens query and document may have together. Raises EngineError."""
        around, _ = self._model.build_pair("", "", batch.instruction)
        room = self._model.max_tokens - len(around) - JOINTS
        if room < 2:
            raise EngineError(
                f"the instruction leaves no room for query and document in the model's {self._model.max_tokens} tokens"
            )
        return room

    def _add(
        self, collector: PromptCollector, batch: ScoringBatch, query: str, position: int, tokens: int, room: int
    ) -> None:
        document = batch.documents[position]
        parts = parts_of(tokens, room, batch)
        whole = parts == [(0, tokens)]
        offsets = [] if whole else self._model.tokens.offsets(document)
        for start, end in parts:
            try:
                (ids, first_typed), read = self._fitting(batch, query, document, offsets, start, end)
            except Exception:
                # The library fails on this text: only this document fails.
                collector.fail(position, UNREADABLE)
                return
            if read < end:
                collector.truncated.add(position)
            window = characters(offsets, start, read) if len(parts) > 1 else None
            collector.add(position, self._model.engine_input(ids, first_typed), len(ids), window)
        if parts[-1][1] < tokens:
            collector.truncated.add(position)

    def _fitting(
        self, batch: ScoringBatch, query: str, document: str, offsets: list[tuple[int, int]], start: int, end: int
    ) -> tuple[Built, int]:
        """The prompt of a part of the document, and the end of that part, which may have been shortened."""
        for _ in range(_TRIES):
            first, last = characters(offsets, start, end) if offsets else (0, len(document))
            built = self._model.build_pair(query, document[first:last], batch.instruction)
            excess = len(built[0]) - self._model.max_tokens
            if excess <= 0:
                return built, end
            offsets = offsets or self._model.tokens.offsets(document)
            end = max(start + 1, end - excess - JOINTS)
        raise ValueError("the prompt stays too long")
