"""The superset as it is spoken at the root: where the body is another system's own, so is the answer."""

from collections.abc import Sequence
from typing import ClassVar

from pydantic import BaseModel

from api.dialects.base import Dialect
from api.dialects.nvidia import NvidiaDialect
from api.dialects.reading import JsonObject
from api.dialects.superset import SupersetDialect
from api.dialects.tei import TeiDialect
from api.dialects.vllm_score import SIDES, VllmScoreDialect

_FIRST_SIDES = sorted({first for first, _ in SIDES})
_TEI, _SCORE, _NVIDIA = TeiDialect(), VllmScoreDialect(), NvidiaDialect()


class RootDialect(SupersetDialect):
    """The superset, and who else may be meant by a body."""

    paths = (*SupersetDialect.paths, *VllmScoreDialect.paths, *NvidiaDialect.paths)
    answer_models: ClassVar[tuple[type[BaseModel], ...]] = (
        *SupersetDialect.answer_models,
        *_TEI.answer_models,
        *_SCORE.answer_models,
        *_NVIDIA.answer_models,
    )

    def readers(self, path: str) -> Sequence[Dialect]:
        def is_elsewhere(dialect: Dialect) -> bool:
            return not path.endswith(tuple(SupersetDialect.paths if dialect is self else dialect.paths))

        return sorted((self, _TEI, _SCORE, _NVIDIA), key=is_elsewhere)

    def spoken_in(self, body: JsonObject) -> Dialect:
        # Fields that the superset does not know are ignored: what it can read, it answers.
        if body.get("documents") is not None and body.get("query") is not None:
            return self
        if body.get("texts") is not None:
            return _TEI
        if body.get("passages") is not None:
            return _NVIDIA
        if any(body.get(side) is not None for side in _FIRST_SIDES):
            return _SCORE
        return self
