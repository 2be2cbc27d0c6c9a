"""Cross-encoders that read a prompt of running text: language models that rerank, with or without a score template.

The library builds every prompt. Texts are cut before they go into it, never the prompt itself: what stands at its end
(where the model is asked for its answer) is what makes it a reranker.
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
"""Tokens kept free: where texts meet the prompt around them, or were cut, they may become some tokens more."""
_TRIES = 4


class PromptScoring:
    """Scores are logits."""

    scale = ScoreScale.LOGIT

    def __init__(self, side: ModelView, template: str | None) -> None:
        self._side = side
        self._template = template

    def prepare(self, batch: ScoringBatch) -> PreparedPrompts:
        check_instruction(batch.instruction, self._template)
        ids, *documents = self._side.tokens.ids([batch.query, *batch.documents])
        asked = read_query(batch, ids)
        room = self._room(batch)
        query = asked[: room // 2]
        text = cut_text(self._side.tokens, batch.query, len(ids or ()), len(query))
        gathering = PromptCollector(len(documents))
        for position, document in enumerate(documents):
            if document is None:
                gathering.fail(position, UNREADABLE)
                continue
            if len(query) < len(asked):
                gathering.truncated.add(position)
            self._add(gathering, batch, text, position, len(document), room - len(query))
        return PreparedPrompts(gathering)

    def _room(self, batch: ScoringBatch) -> int:
        """How many tokens query and document have together. Raises EngineError."""
        around, _ = self._side.build_pair("", "", batch.instruction)
        room = self._side.max_tokens - len(around) - JOINTS
        if room < 2:
            raise EngineError(
                f"the instruction leaves no room for query and document in the model's {self._side.max_tokens} tokens"
            )
        return room

    def _add(
        self, gathering: PromptCollector, batch: ScoringBatch, query: str, position: int, tokens: int, room: int
    ) -> None:
        document = batch.documents[position]
        parts = parts_of(tokens, room, batch)
        whole = parts == [(0, tokens)]
        offsets = [] if whole else self._side.tokens.offsets(document)
        for start, end in parts:
            try:
                (ids, first_typed), read = self._fitting(batch, query, document, offsets, start, end)
            except Exception:
                # Whatever the library makes of a strange text: it is this document's trouble alone.
                gathering.fail(position, UNREADABLE)
                return
            if read < end:
                gathering.truncated.add(position)
            window = characters(offsets, start, read) if len(parts) > 1 else None
            gathering.add(position, self._side.engine_input(ids, first_typed), len(ids), window)
        if parts[-1][1] < tokens:
            gathering.truncated.add(position)

    def _fitting(
        self, batch: ScoringBatch, query: str, document: str, offsets: list[tuple[int, int]], start: int, end: int
    ) -> tuple[Built, int]:
        """The prompt of a part of the document, and where the part ends, should it have had to be shortened."""
        for _ in range(_TRIES):
            first, last = characters(offsets, start, end) if offsets else (0, len(document))
            built = self._side.build_pair(query, document[first:last], batch.instruction)
            excess = len(built[0]) - self._side.max_tokens
            if excess <= 0:
                return built, end
            offsets = offsets or self._side.tokens.offsets(document)
            end = max(start + 1, end - excess - JOINTS)
        raise ValueError("the prompt stays too long")
