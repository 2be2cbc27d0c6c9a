"""Bifrost's gateway API: models are `provider/model`, `fallbacks` are tried in order, blank documents are refused.

The provider is returned and otherwise ignored.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field

from api.dialects import examples
from api.dialects.base import Dialect
from api.dialects.request_fields import (
    TEXT_REQUIRED,
    JsonObject,
    read_documents,
    read_query,
    read_request,
    without_nulls,
)
from api.dialects.rows import echo_parts, rows_of
from api.dialects.schemas import (
    AtLeastOne,
    Model,
    Omitted,
    Priority,
    Query,
    RequestSchema,
    ResponseSchema,
    Row,
    Tokens,
    TopN,
)
from api.dialects.superset import Fallbacks, RoutedFields
from api.http.error_responses import status_of
from shared.contracts import RerankRequest, RerankResult
from shared.errors import InternalError, InvalidRequest, RerankqError

_PROVIDER = "rerankq"
"""The provider of a model that was named without one."""
_NotBlank = Annotated[str, Field(pattern=r"\S")]


class BifrostDocument(RequestSchema):
    """A document as an object; `id` and `meta` are the caller's and are returned."""

    text: _NotBlank
    id: str | None = None
    meta: dict[str, Any] | None = None


class BifrostRequest(RequestSchema):
    """A query and the documents to rank."""

    model: Model = None
    query: Query
    documents: Annotated[list[_NotBlank | BifrostDocument], Field(min_length=1)]
    top_n: TopN = None
    max_tokens_per_doc: AtLeastOne = None
    priority: Priority = None
    return_documents: Annotated[bool | None, Field(description="Default: false.")] = None
    fallbacks: Annotated[
        Fallbacks | None,
        Field(description="Models to try, in order, when one is unknown, unavailable, overloaded or fails."),
    ] = None


class BifrostEcho(ResponseSchema):
    """A returned document."""

    text: str
    id: str | int | Omitted = None
    meta: Any | Omitted = None


class BifrostRow(Row):
    """A ranked document, with its content when requested."""

    document: BifrostEcho | Omitted = None


class BifrostUsage(ResponseSchema):
    """The tokens that the request used."""

    prompt_tokens: Tokens
    completion_tokens: int
    total_tokens: Tokens


class BifrostExtra(ResponseSchema):
    """How the request was answered; `latency` is in milliseconds."""

    request_type: Literal["rerank"]
    provider: str
    latency: int
    chunk_index: Literal[0]


class BifrostAnswer(ResponseSchema):
    """The ranked documents, best first."""

    id: str
    results: list[BifrostRow]
    model: str
    usage: BifrostUsage
    extra_fields: BifrostExtra


class BifrostErrorObject(ResponseSchema):
    """`type` is stable, `param` names the field."""

    type: str
    message: str
    param: str | Omitted = None


class BifrostErrorExtra(ResponseSchema):
    """The type of the request."""

    request_type: Literal["rerank"]


class BifrostError(ResponseSchema):
    """An error; a Bifrost error is a fault of the gateway."""

    is_bifrost_error: bool
    status_code: int
    error: BifrostErrorObject
    extra_fields: BifrostErrorExtra


class BifrostDialect(Dialect):
    """The dialect under /bifrost."""

    name = "bifrost"
    paths = ("/v1/rerank", "/rerank")
    request_model = BifrostRequest
    answer_models: ClassVar[tuple[type[BaseModel], ...]] = (BifrostAnswer,)
    error_model = BifrostError
    examples: ClassVar[dict[str, JsonObject]] = {
        "documents": {
            "model": "vllm/all-MiniLM-L6-v2",
            "query": examples.QUERY,
            "documents": [
                {"text": examples.DOCUMENTS[0], "id": "doc-1"},
                {"text": examples.DOCUMENTS[1], "id": "doc-2", "meta": {"source": "zoo"}},
                examples.DOCUMENTS[2],
            ],
            "top_n": 2,
            "return_documents": True,
        },
        "fallback": {
            "model": "cohere/rerank-v3.5",
            "fallbacks": ["vllm/all-MiniLM-L6-v2"],
            "query": examples.QUERY,
            "documents": examples.DOCUMENTS,
        },
        "blank-document": {"query": examples.QUERY, "documents": ["hi", " "]},
        "unknown-model": {"model": "cohere/rerank-v3.5", "query": examples.QUERY, "documents": examples.DOCUMENTS},
    }

    def parse(self, body: JsonObject) -> RerankRequest:
        body = {"return_documents": False} | without_nulls(body)
        body.pop("rank_fields", None)
        query = read_query(body)
        documents = read_documents(body)
        for index, document in enumerate(documents):
            if not document.text.strip():
                raise InvalidRequest(TEXT_REQUIRED.format(index), param=f"documents[{index}].text")
        return read_request(body, documents, query, RoutedFields)

    def render(self, result: RerankResult) -> dict[str, Any]:
        provider, slash, model = result.model.partition("/")
        tokens = result.prompt_tokens
        return {
            "id": result.id,
            "results": rows_of(result, echo_parts),
            "model": model if slash else result.model,
            "usage": {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens},
            "extra_fields": {
                "request_type": "rerank",
                "provider": provider if slash else _PROVIDER,
                "latency": round(result.queue_ms + result.inference_ms),
                "chunk_index": 0,
            },
        }

    def render_error(self, error: RerankqError, request_id: str = "") -> dict[str, Any]:
        return {
            "is_bifrost_error": isinstance(error, InternalError),
            "status_code": status_of(error),
            "error": {"type": error.code, "message": error.message} | ({"param": error.param} if error.param else {}),
            "extra_fields": {"request_type": "rerank"},
        }
