"""Voyage's API: `top_k`, and the rows in `data`."""

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
from api.dialects.rows import rows_of, text_of
from api.dialects.schemas import (
    DetailError,
    MayTruncate,
    Model,
    Omitted,
    Query,
    RequestSchema,
    ResponseSchema,
    Row,
    Texts,
    TopN,
    TotalUsage,
)
from shared.contracts import RerankRequest, RerankResult
from shared.errors import RerankqError


class VoyageRequest(RequestSchema):
    """A query and the documents to rank."""

    query: Query
    documents: Texts
    model: Model = None
    top_k: TopN = None
    return_documents: Annotated[bool | None, Field(description="Default: false.")] = None
    truncation: MayTruncate = None


class VoyageRow(Row):
    """A ranked document, with its content when requested."""

    document: str | Omitted = None


class VoyageAnswer(ResponseSchema):
    """The ranked documents, best first."""

    object: Literal["list"]
    data: list[VoyageRow]
    model: str
    usage: TotalUsage


class VoyageDialect(Dialect):
    """The dialect under /voyage, and at the root for bodies with `truncation`."""

    name = "voyage"
    paths = ("/v1/rerank",)
    aliases = ("/rerank",)
    request_model = VoyageRequest
    answer_models: ClassVar[tuple[type[BaseModel], ...]] = (VoyageAnswer,)
    error_model = DetailError
    examples: ClassVar[dict[str, JsonObject]] = {
        "documents": {
            "query": examples.QUERY,
            "documents": examples.DOCUMENTS,
            "top_k": 2,
            "return_documents": True,
            "truncation": True,
        },
        "no-query": {"documents": examples.DOCUMENTS},
    }

    def parse(self, body: JsonObject) -> RerankRequest:
        body = {"return_documents": False} | without_nulls(body)
        query = read_query(body)
        return read_request(body, read_documents(body, ObjectHandling.REFUSED), query)

    def render(self, result: RerankResult) -> dict[str, Any]:
        return {
            "object": "list",
            "data": rows_of(result, text_of),
            "model": result.model,
            "usage": {"total_tokens": result.prompt_tokens},
        }

    def render_error(self, error: RerankqError, request_id: str = "") -> dict[str, Any]:
        return {"detail": error.message}
