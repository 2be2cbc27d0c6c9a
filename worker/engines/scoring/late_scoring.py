"""Late interaction: every token is embedded, and a score is the sum, over the query's tokens, of the best match.

The library compares the embeddings. A score grows with the query's length: it ranks within one request, and compares
with nothing outside of it.
"""

from typing import Any

from shared.contracts import ScoreScale
from worker.engines.base import BatchScores, EngineError, ScoringBatch
from worker.engines.scoring.base import (
    NOTHING_TO_READ,
    UNREADABLE,
    ModelView,
    PromptCollector,
    parts_of,
    read_query,
    scalar,
)
from worker.engines.scoring.layouts import Layout
from worker.engines.scoring.templates import check_instruction
from worker.engines.scoring.windows import characters


class LateScoring:
    """Scores are sums of cosines."""

    scale = ScoreScale.SIMILARITY

    def __init__(self, side: ModelView, layout: Layout) -> None:
        self._side = side
        self._layout = layout
        self._room = side.max_tokens - layout.special_tokens

    def prepare(self, batch: ScoringBatch) -> "_PreparedLate":
        check_instruction(batch.instruction, None)
        ids, *documents = self._side.tokens.ids([batch.query, *batch.documents])
        asked = read_query(batch, ids)
        query = self._layout.single(asked[: self._room])
        if not query:
            raise EngineError("nothing of the query is left for the model to read")
        gathering = PromptCollector(len(documents))
        for position, document in enumerate(documents):
            if document is None:
                gathering.fail(position, UNREADABLE)
                continue
            if len(asked) > self._room:
                gathering.truncated.add(position)
            self._add(gathering, batch, position, document)
        return _PreparedLate(self._side, query, gathering)

    def _add(self, gathering: PromptCollector, batch: ScoringBatch, position: int, document: list[int]) -> None:
        parts = parts_of(len(document), self._room, batch)
        if parts[-1][1] < len(document):
            gathering.truncated.add(position)
        offsets = self._side.tokens.offsets(batch.documents[position]) if len(parts) > 1 else None
        for start, end in parts:
            if not (ids := self._layout.single(document[start:end])):
                gathering.fail(position, NOTHING_TO_READ)
                return
            window = None if offsets is None else characters(offsets, start, end)
            gathering.add(position, self._side.engine_input(ids), len(ids), window)


class _PreparedLate:
    def __init__(self, side: ModelView, query: list[int], gathering: PromptCollector) -> None:
        self._side = side
        self._gathering = gathering
        self.inputs: list[Any] = []
        if gathering.inputs:
            self.inputs = [side.engine_input(query), *gathering.inputs]
            gathering.prompt_tokens += len(query)

    def scores(self, outputs: list[Any]) -> BatchScores:
        matches = self._side.post_process(outputs) if outputs else []
        return self._gathering.best([scalar(match) for match in matches])
