"""The canonical request and result, and the scores that a worker reports: the types that all packages exchange.

Owns field names, types and bounds. Knows nothing about HTTP, Redis or dialects.
"""

import json
from enum import StrEnum
from typing import Annotated, Any, Protocol, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictInt, StrictStr

MAX_PRIORITY = 999


class ScoreScale(StrEnum):
    """The kind of an engine's raw score, which determines how it is normalized to 0..1."""

    LOGIT = "logit"
    """Any real number; normalized with the sigmoid."""
    SIMILARITY = "similarity"
    """A cosine similarity or a word overlap; returned unchanged."""


class WorkClass(StrEnum):
    """Whether a caller waits for the job (interactive) or not (batch). Interactive work is scored first."""

    INTERACTIVE = "interactive"
    BATCH = "batch"


class Truncation(StrEnum):
    """What is read of a text that is over a limit."""

    END = "end"
    """The end is cut off: the beginning is read."""
    START = "start"
    """The beginning is cut off: the end is read."""
    NONE = "none"
    """Nothing is cut off: the request fails with TextTooLong."""


_new: Any = object.__new__
_set = object.__setattr__
_ONLY_TEXT = {"text"}


def _finite(value: Any) -> Any:
    """Reject values that hold infinity: JSON numbers like 1e999 parse as infinity, which cannot be written as JSON."""
    json.dumps(value, allow_nan=False)
    return value


class Document(BaseModel):
    """One passage to score. Only `text` is scored; `id`, `meta` and `fields` are returned to the caller unchanged.

    `query` replaces the request's query for this document; when one document has it, all documents of the request do.
    `fields` is the caller's whole document object, for dialects that return it; else None.
    """

    model_config = ConfigDict(frozen=True)

    text: str
    query: str | None = None
    fields: Annotated[dict[str, Any], AfterValidator(_finite)] | None = None
    id: StrictStr | StrictInt | None = None
    meta: Annotated[Any, AfterValidator(_finite)] = None

    @classmethod
    def plain(cls, text: str) -> Self:
        """A document with only a text. Equivalent to `model_construct`, but four times as fast."""
        document: Self = _new(cls)
        _set(document, "__dict__", {"text": text, "query": None, "fields": None, "id": None, "meta": None})
        _set(document, "__pydantic_fields_set__", _ONLY_TEXT)
        _set(document, "__pydantic_extra__", None)
        _set(document, "__pydantic_private__", None)
        return document


class NumberedDocument(Document):
    """A document of a request that forbids truncation, so that a worker can name the one that is too long.

    `position` is its place in the request.
    """

    position: int | None = None


class RerankRequest(BaseModel):
    """One query and its documents, independent of the dialect.

    `model` is the name or alias that the caller sent, None for the default model. `fallbacks` are the names to try
    next, in order, when that model is unknown, unavailable or fails. `top_n` None returns all documents.
    `priority` is 0 (most urgent) to 999. `instruction` is inserted into the model's score template. The token limits
    are the caller's; the model's own limits apply as well. A document too long for one window is cut into at most
    `max_chunks_per_doc` windows, which overlap by `overlap_tokens` (None: the worker decides). `max_prompt_tokens`
    limits one prompt of the model, special tokens included: the query with a document, or each of them alone when the
    model embeds them separately. `truncation` applies to all of these limits. Without `use_cache` scores are neither
    read from the score cache nor written to it.
    """

    model_config = ConfigDict(frozen=True)

    model: str | None = None
    fallbacks: list[str] = []
    query: str
    documents: list[Document] = []
    top_n: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool = True
    raw_scores: bool = False
    instruction: str | None = None
    max_tokens_per_query: Annotated[int, Field(ge=1)] | None = None
    max_tokens_per_doc: Annotated[int, Field(ge=1)] | None = None
    max_chunks_per_doc: Annotated[int, Field(ge=1)] = 1
    overlap_tokens: Annotated[int, Field(ge=0)] | None = None
    max_prompt_tokens: Annotated[int, Field(ge=1)] | None = None
    truncation: Truncation = Truncation.END
    priority: Annotated[int, Field(ge=0, le=MAX_PRIORITY)] = 0
    use_cache: bool = True


class ShardScores(BaseModel):
    """The scores that a worker reports for one shard. Positions count the pairs of the shard.

    `scores` has one raw score per pair, None where that document failed; `errors` maps its position to the reason.
    `truncated` lists the positions whose text was not read completely. `windows` maps a position whose document was
    cut into windows to the character range [start, end) of the best one. `prompt_tokens` counts the model's input.
    `queue_ms` includes `start_ms`, the time in which no worker was ready.
    """

    scores: list[float | None]
    scale: ScoreScale
    prompt_tokens: int = 0
    truncated: list[int] = []
    windows: dict[int, tuple[int, int]] = {}
    errors: dict[int, str] = {}
    queue_ms: float = 0.0
    start_ms: float = 0.0
    inference_ms: float = 0.0


class PairOutcome(Protocol):
    """What a row tells about its pair besides the score; see ShardScores."""

    @property
    def truncated(self) -> bool: ...
    @property
    def window(self) -> tuple[int, int] | None: ...
    @property
    def error(self) -> str | None: ...


class RankedRow(BaseModel):
    """One document of a result. `index` is its position in the request, `window` the characters of its best window."""

    model_config = ConfigDict(frozen=True)

    index: int
    score: float
    document: Document
    truncated: bool = False
    window: tuple[int, int] | None = None
    error: str | None = None

    @classmethod
    def of(cls, index: int, score: float, document: Document, pair: "PairOutcome") -> Self:
        """A row. Equivalent to `model_construct`, but four times as fast: a batch makes millions."""
        row: Self = _new(cls)
        fields = {
            "index": index,
            "score": score,
            "document": document,
            "truncated": pair.truncated,
            "window": pair.window,
            "error": pair.error,
        }
        _set(row, "__dict__", fields)
        _set(row, "__pydantic_fields_set__", _ROW_FIELDS)
        _set(row, "__pydantic_extra__", None)
        _set(row, "__pydantic_private__", None)
        return row


_ROW_FIELDS = set(RankedRow.model_fields)


class RerankResult(BaseModel):
    """The ranked result, best document first, before a dialect renders it. `created` is in Unix seconds.

    `cached_pairs` counts the pairs whose scores were known already; `prompt_tokens` does not include them.
    `queue_ms` includes `start_ms`, the time in which no worker was ready.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    model: str
    created: int
    return_documents: bool
    rows: list[RankedRow]
    prompt_tokens: int
    cached_pairs: int = 0
    queue_ms: float = 0.0
    start_ms: float = 0.0
    inference_ms: float = 0.0
