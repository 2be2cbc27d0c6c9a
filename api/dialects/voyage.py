"""Voyage's API: `top_k`, and the rows in `data`. `truncation` is ignored: what is too long is always cut."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field

from api.dialects import examples
from api.dialects.base import Dialect
from api.dialects.request_fields import JsonObject, Objects, read_documents, read_query, read_request, without_nulls
from api.dialects.rows import rows_of, text_of
from api.dialects.schemas import (
    Absent,
    DetailError,
    Ignored,
    Model,
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
    """What to rank."""

    query: Query
    documents: Texts
    model: Model = None
    top_k: TopN = None
    return_documents: Annotated[bool | None, Field(description="Default: false.")] = None
    truncation: Ignored = None


class VoyageRow(Row):
    """A document's place, and the document when it is wanted."""

    document: str | Absent = None


class VoyageAnswer(ResponseSchema):
    """The documents, best first."""

    object: Literal["list"]
    data: list[VoyageRow]
    model: str
    usage: TotalUsage


class VoyageDialect(Dialect):
    """Speaks under /voyage, and at the root to whoever sends `truncation`."""

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
        return read_request(body, read_documents(body, Objects.REFUSED), query)

    def render(self, result: RerankResult) -> dict[str, Any]:
        return {
            "object": "list",
            "data": rows_of(result, text_of),
            "model": result.model,
            "usage": {"total_tokens": result.prompt_tokens},
        }

    def render_error(self, error: RerankqError, request_id: str = "") -> dict[str, Any]:
        return {"detail": error.message}
