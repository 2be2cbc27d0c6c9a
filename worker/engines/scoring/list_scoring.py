"""Listwise models: all documents of a batch stand in one prompt, and are compared with each other.

The library builds the prompt and reads its scores. When the documents are too much for one prompt, the longest ones
are cut until all fit: nothing is ever left out, since a document's score depends on its neighbours. There are no
windows here; `max_chunks_per_doc` is an upper bound, and one window is within it.
"""

import dataclasses
from typing import Any

from shared.contracts import ScoreScale
from worker.engines.base import BatchScores, EngineError, ScoringBatch
from worker.engines.scoring.base import UNREADABLE, ModelView, PromptCollector, cut_text, read_query, scalar
from worker.engines.scoring.windows import fair_share

_QUERY_SHARE = 4
"""A query may take a quarter of the prompt: it stands in it twice."""
_TRIES = 4


class ListScoring:
    """Scores are cosines."""

    scale = ScoreScale.SIMILARITY

    def __init__(self, side: ModelView) -> None:
        self._side = side

    def prepare(self, batch: ScoringBatch) -> "_PreparedList":
        ids, *documents = self._side.tokens.ids([batch.query, *batch.documents])
        asked = read_query(batch, ids)
        kept = len(asked[: self._side.max_tokens // _QUERY_SHARE])
        query = cut_text(self._side.tokens, batch.query, len(ids or ()), kept)
        gathering = PromptCollector(len(documents))
        lengths: dict[int, int] = {}
        for position, document in enumerate(documents):
            if document is None:
                gathering.fail(position, UNREADABLE)
            else:
                lengths[position] = len(document)
        if kept < len(asked):
            gathering.truncated.update(lengths)
        prompt = self._prompt(gathering, batch, query, lengths) if lengths else []
        return _PreparedList(self._side, prompt, gathering, list(lengths))

    def _prompt(
        self, gathering: PromptCollector, batch: ScoringBatch, query: str, lengths: dict[int, int]
    ) -> list[int]:
        """One prompt with every readable document, cut as little as it takes. Raises EngineError."""
        limit = batch.max_tokens_per_doc
        wanted = [length if limit is None else min(length, limit) for length in lengths.values()]
        around = self._side.build_list(query, [""] * len(wanted), batch.instruction)
        room = self._side.max_tokens - len(around)
        for _ in range(_TRIES):
            share = fair_share(wanted, room)
            if share < min(1, max(wanted)):
                break
            cuts = {position: min(wish, share) for position, wish in zip(lengths, wanted, strict=True)}
            texts = [
                cut_text(self._side.tokens, batch.documents[position], lengths[position], cut)
                for position, cut in cuts.items()
            ]
            ids = self._side.build_list(query, texts, batch.instruction)
            if (excess := len(ids) - self._side.max_tokens) <= 0:
                gathering.truncated.update(position for position, cut in cuts.items() if cut < lengths[position])
                return ids
            # Texts that stand together may become some tokens more than each by itself.
            room = min(room, sum(cuts.values())) - excess - len(wanted)
        raise EngineError(
            f"{len(wanted)} documents do not fit into one prompt of {self._side.max_tokens} tokens, "
            "and this model reads all documents at once"
        )


class _PreparedList:
    def __init__(self, side: ModelView, prompt: list[int], gathering: PromptCollector, positions: list[int]) -> None:
        self._side = side
        self._gathering = gathering
        self._positions = positions
        self._prompt_tokens = len(prompt)
        self.inputs: list[Any] = [side.engine_input(prompt)] if prompt else []

    def scores(self, outputs: list[Any]) -> BatchScores:
        for position in self._positions:
            self._gathering.add(position, None, 0)
        if any(output.error is not None for output in outputs):
            return self._gathering.best([float("nan")] * len(self._positions))
        scored = self._side.post_process(outputs) if outputs else []
        best = self._gathering.best([scalar(output) for output in scored])
        return dataclasses.replace(best, prompt_tokens=self._prompt_tokens)
