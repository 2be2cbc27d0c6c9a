"""Pinecone's inference API: documents are objects that are returned whole, and the API key is sent as `Api-Key`."""

from typing import Annotated, Any, ClassVar

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
from api.dialects.rows import echo, rows_of
from api.dialects.schemas import (
    Index,
    Model,
    ObjectEcho,
    Omitted,
    Parameters,
    Query,
    RankFieldNames,
    RequestSchema,
    ResponseSchema,
    Score,
    TopN,
)
from api.http.error_responses import status_of
from shared.contracts import RerankRequest, RerankResult
from shared.errors import RerankqError

_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    409: "ABORTED",
    413: "INVALID_ARGUMENT",
    422: "ALREADY_EXISTS",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class PineconeRequest(RequestSchema):
    """A query and the documents to rank."""

    model: Model = None
    query: Query
    documents: Annotated[list[dict[str, Any] | str], Field(min_length=1, description="Objects with the `rank_fields`.")]
    top_n: TopN = None
    return_documents: Annotated[bool | None, Field(description="Default: true.")] = None
    rank_fields: RankFieldNames = None
    parameters: Parameters | None = None


class PineconeRow(ResponseSchema):
    """A ranked document, with its content unless declined."""

    index: Index
    score: Score
    document: ObjectEcho | Omitted = None


class PineconeUsage(ResponseSchema):
    """The tokens that the request used."""

    rerank_units: int


class PineconeAnswer(ResponseSchema):
    """The ranked documents, best first."""

    model: str
    data: list[PineconeRow]
    usage: PineconeUsage


class PineconeErrorObject(ResponseSchema):
    """A gRPC code, and a sentence."""

    code: str
    message: str


class PineconeError(ResponseSchema):
    """An error."""

    error: PineconeErrorObject
    status: int


class PineconeDialect(Dialect):
    """The dialect under /pinecone."""

    name = "pinecone"
    paths = ("/rerank",)
    request_model = PineconeRequest
    answer_models: ClassVar[tuple[type[BaseModel], ...]] = (PineconeAnswer,)
    error_model = PineconeError
    examples: ClassVar[dict[str, JsonObject]] = {
        "documents": {
            "query": examples.QUERY,
            "documents": [{"id": f"doc-{n}", "text": text} for n, text in enumerate(examples.DOCUMENTS)],
            "rank_fields": ["text"],
            "top_n": 2,
        },
        "no-query": {"documents": [{"text": "hi"}]},
    }

    def parse(self, body: JsonObject) -> RerankRequest:
        body = without_nulls(body)
        query = read_query(body)
        return read_request(body, read_documents(body, ObjectHandling.WHOLE), query)

    def render(self, result: RerankResult) -> dict[str, Any]:
        return {"model": result.model, "data": rows_of(result, echo, score="score"), "usage": {"rerank_units": 1}}

    def render_error(self, error: RerankqError, request_id: str = "") -> dict[str, Any]:
        status = status_of(error)
        return {"error": {"code": _CODES.get(status, "UNKNOWN"), "message": error.message}, "status": status}
