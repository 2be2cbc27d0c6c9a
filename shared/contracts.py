"""The canonical request and result, and what a worker hands back: the only shapes that cross a room's wall.

Owns field names, types and bounds. Refuses anything about HTTP, Redis or a dialect.
"""

import json
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictInt, StrictStr

MAX_PRIORITY = 999


class ScoreScale(StrEnum):
    """What an engine's raw score is, and so how it becomes 0..1."""

    LOGIT = "logit"
    """Any real number; the sigmoid normalizes it."""
    SIMILARITY = "similarity"
    """A cosine or an overlap, passed as it is."""


class WorkClass(StrEnum):
    """Who waits: decides the queue, and what overtakes what."""

    INTERACTIVE = "interactive"
    BATCH = "batch"


_new: Any = object.__new__
_set = object.__setattr__
_ONLY_TEXT = {"text"}


def _finite(value: Any) -> Any:
    """A number like 1e999 is read as infinity, which is not JSON on the way back."""
    json.dumps(value, allow_nan=False)
    return value


class Document(BaseModel):
    """One passage; `text` is what is scored. `id`, `meta` and `fields` are the caller's and come back untouched.

    `query` is what it is scored against, where that is not the request's: then each document of the request has one.
    `fields` is the object as it came, where all of it is to come back; else None.
    """

    model_config = ConfigDict(frozen=True)

    text: str
    query: str | None = None
    fields: Annotated[dict[str, Any], AfterValidator(_finite)] | None = None
    id: StrictStr | StrictInt | None = None
    meta: Annotated[Any, AfterValidator(_finite)] = None

    @classmethod
    def plain(cls, text: str) -> Self:
        """A document that is a text and nothing else: `model_construct`, in a quarter of its time."""
        document: Self = _new(cls)
        _set(document, "__dict__", {"text": text, "query": None, "fields": None, "id": None, "meta": None})
        _set(document, "__pydantic_fields_set__", _ONLY_TEXT)
        _set(document, "__pydantic_extra__", None)
        _set(document, "__pydantic_private__", None)
        return document


class RerankRequest(BaseModel):
    """One query against its documents, whatever dialect it came in.

    `model` is the name the caller used (an alias counts), None for the default one; `fallbacks` are the names to try
    after it, in order, when it is not served, not available or fails. `top_n` None means all.
    `priority` is 0 (most urgent) to 999. `instruction` goes into the model's score template. The limits in tokens
    are the caller's own, below the model's. A document too long for one window is cut into at most
    `max_chunks_per_doc` windows, each sharing `overlap_tokens` with the one before (None: the worker's choice).
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
    priority: Annotated[int, Field(ge=0, le=MAX_PRIORITY)] = 0


class ShardScores(BaseModel):
    """What a worker writes back for one shard: one entry a pair, in input order.

    `scores` are the model's own (None where the document failed alone; `errors` then says why, by position);
    `truncated` lists positions of which something was never read; `windows` has, where a document was cut into
    windows, the best one's first and last + 1 character. `prompt_tokens` counts what went into the model.
    Milliseconds: `queue_ms`, of these `start_ms` in which no worker was ready, and `inference_ms`.
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


class RankedRow(BaseModel):
    """One document's place; `index` is its position in the request, `window` the characters that won."""

    model_config = ConfigDict(frozen=True)

    index: int
    score: float
    document: Document
    truncated: bool = False
    window: tuple[int, int] | None = None
    error: str | None = None


class RerankResult(BaseModel):
    """The ranked answer, best first, before a dialect gives it its shape. `created` is Unix seconds.

    `prompt_tokens` counts what this request put into the model, and so nothing for `cached_pairs`: pairs whose scores
    were known before. Milliseconds: `queue_ms`, of these `start_ms` in which no worker was ready, and `inference_ms`.
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
