"""GPUStack's rerank API: like Jina's, but the scores are the model's own."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field

from api.dialects import examples
from api.dialects.base import Dialect
from api.dialects.request_fields import (
    JsonObject,
    ObjectHandling,
    read_documents,
    read_query,
    read_request,
    without_nulls,
)
from api.dialects.rows import rows_of, text_object
from api.dialects.schemas import (
    Index,
    Model,
    Omitted,
    PromptUsage,
    Query,
    RawScore,
    RequestSchema,
    ResponseSchema,
    TextEcho,
    Texts,
    TopN,
)
from api.http.error_responses import status_of
from shared.contracts import RerankRequest, RerankResult
from shared.errors import RerankqError

_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    413: "PayloadTooLarge",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalServerError",
    503: "ServiceUnavailable",
    504: "GatewayTimeout",
}


class GpustackRequest(RequestSchema):
    """A query and the documents to rank."""

    model: Model = None
    query: Query
    documents: Texts
    top_n: TopN = None
    return_documents: Annotated[bool | None, Field(description="Default: true.")] = None


class GpustackRow(ResponseSchema):
    """A ranked document, with its content unless declined."""

    document: TextEcho | Omitted = None
    index: Index
    relevance_score: RawScore


class GpustackAnswer(ResponseSchema):
    """The ranked documents, best first."""

    model: str
    object: Literal["list"]
    results: list[GpustackRow]
    usage: PromptUsage


class GpustackErrorObject(ResponseSchema):
    """`code` is the HTTP status."""

    message: str
    code: int
    type: str


class GpustackError(ResponseSchema):
    """An error."""

    error: GpustackErrorObject


class GpustackDialect(Dialect):
    """The dialect under /gpustack."""

    name = "gpustack"
    paths = ("/v1/rerank",)
    aliases = ("/rerank",)
    request_model = GpustackRequest
    answer_models: ClassVar[tuple[type[BaseModel], ...]] = (GpustackAnswer,)
    error_model = GpustackError
    examples: ClassVar[dict[str, JsonObject]] = {
        "documents": {"query": examples.QUERY, "documents": examples.DOCUMENTS, "top_n": 2},
        "no-query": {"documents": examples.DOCUMENTS},
    }

    def parse(self, body: JsonObject) -> RerankRequest:
        body = {"raw_scores": True} | without_nulls(body)
        query = read_query(body)
        return read_request(body, read_documents(body, ObjectHandling.REFUSED), query)

    def render(self, result: RerankResult) -> dict[str, Any]:
        tokens = result.prompt_tokens
        return {
            "model": result.model,
            "object": "list",
            "results": rows_of(result, text_object),
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }

    def render_error(self, error: RerankqError, request_id: str = "") -> dict[str, Any]:
        status = status_of(error)
        return {"error": {"message": error.message, "code": status, "type": _REASONS.get(status, "Unknown")}}
