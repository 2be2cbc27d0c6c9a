"""Jina's API, as the Jina clients of LangChain, LlamaIndex and Haystack use it."""

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, Field

from api.dialects import examples
from api.dialects.base import Dialect
from api.dialects.request_fields import JsonObject, read_documents, read_query, read_request, without_nulls
from api.dialects.rows import rows_of, text_object
from api.dialects.schemas import (
    DetailError,
    Model,
    Query,
    RequestSchema,
    ResponseSchema,
    RowWithText,
    TextDocument,
    TopN,
    TotalUsage,
)
from api.http.error_responses import status_of
from shared.contracts import RerankRequest, RerankResult
from shared.errors import InvalidRequest, RerankqError


class JinaRequest(RequestSchema):
    """A query and the documents to rank."""

    model: Model = None
    query: Query
    documents: Annotated[list[str | TextDocument], Field(min_length=1)]
    top_n: TopN = None
    return_documents: Annotated[bool | None, Field(description="Default: true.")] = None


class JinaAnswer(ResponseSchema):
    """The ranked documents, best first."""

    model: str
    usage: TotalUsage
    results: list[RowWithText]


class JinaDialect(Dialect):
    """The dialect under /jina."""

    name = "jina"
    paths = ("/v1/rerank",)
    aliases = ("/rerank",)
    request_model = JinaRequest
    answer_models: ClassVar[tuple[type[BaseModel], ...]] = (JinaAnswer,)
    error_model = DetailError
    examples: ClassVar[dict[str, JsonObject]] = {
        "documents": {"query": examples.QUERY, "documents": examples.DOCUMENTS, "top_n": 2},
        "objects": {
            "query": examples.QUERY,
            "documents": [{"text": text} for text in examples.DOCUMENTS],
            "return_documents": False,
        },
        "no-documents": {"query": examples.QUERY, "documents": []},
    }

    def parse(self, body: JsonObject) -> RerankRequest:
        body = without_nulls(body)
        query = read_query(body)
        return read_request(body, read_documents(body), query)

    def render(self, result: RerankResult) -> dict[str, Any]:
        return {
            "model": result.model,
            "usage": {"total_tokens": result.prompt_tokens},
            "results": rows_of(result, text_object),
        }

    def render_error(self, error: RerankqError, request_id: str = "") -> dict[str, Any]:
        return {"detail": error.message}

    def status_of(self, error: RerankqError) -> int:
        return 422 if isinstance(error, InvalidRequest) else status_of(error)
