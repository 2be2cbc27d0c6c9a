"""The dialect at the root: the superset, or another dialect when the body is specific to it."""

from collections.abc import Sequence
from typing import ClassVar

from pydantic import BaseModel

from api.dialects.base import Dialect
from api.dialects.dashscope import DashscopeDialect
from api.dialects.mixedbread import MixedbreadDialect
from api.dialects.nvidia import NvidiaDialect
from api.dialects.request_fields import JsonObject
from api.dialects.superset import SupersetDialect
from api.dialects.tei import TeiDialect
from api.dialects.vllm_score import SIDES, VllmScoreDialect
from api.dialects.voyage import VoyageDialect

_FIRST_SIDES = sorted({first for first, _ in SIDES})
_TEI, _SCORE, _NVIDIA = TeiDialect(), VllmScoreDialect(), NvidiaDialect()
_VOYAGE, _MIXEDBREAD, _DASHSCOPE = VoyageDialect(), MixedbreadDialect(), DashscopeDialect()
_OTHERS: tuple[Dialect, ...] = (_TEI, _SCORE, _NVIDIA, _VOYAGE, _MIXEDBREAD, _DASHSCOPE)
_OTHER_PATHS = [path for dialect in _OTHERS for path in dialect.paths if path not in SupersetDialect.paths]
_OTHER_ALIASES = {path for dialect in _OTHERS for path in dialect.aliases}.difference(
    SupersetDialect.paths, SupersetDialect.aliases
)


class RootDialect(SupersetDialect):
    """The superset, and the selection of other dialects by the body."""

    paths = (*SupersetDialect.paths, *_OTHER_PATHS)
    aliases = (*SupersetDialect.aliases, *sorted(_OTHER_ALIASES))
    answer_models: ClassVar[tuple[type[BaseModel], ...]] = (
        *SupersetDialect.answer_models,
        *(model for dialect in _OTHERS for model in dialect.answer_models),
    )

    def readers(self, path: str) -> Sequence[Dialect]:
        def is_elsewhere(dialect: Dialect) -> bool:
            return not path.endswith(tuple(SupersetDialect.paths if dialect is self else dialect.paths))

        return sorted((self, *_OTHERS), key=is_elsewhere)

    def dialect_for_body(self, body: JsonObject) -> Dialect:
        # A body that the superset can parse gets the superset's answer. Voyage's own field is an exception: its clients
        # require an `object` that Infinity's clients refuse.
        if body.get("documents") is not None and body.get("query") is not None:
            return self if body.get("truncation") is None else _VOYAGE
        if body.get("texts") is not None:
            return _TEI
        if body.get("passages") is not None:
            return _NVIDIA
        if (given := body.get("input")) is not None:
            return _DASHSCOPE if isinstance(given, dict) else _MIXEDBREAD
        if any(body.get(side) is not None for side in _FIRST_SIDES):
            return _SCORE
        return self
