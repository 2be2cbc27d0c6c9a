"""The inference API of Weaviate's reranker-transformers module: one score per document, in the order of the request.

Weaviate matches scores and documents by position, so every document is scored and none is left out.
"""

from typing import Any, ClassVar

from pydantic import BaseModel

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
from api.dialects.schemas import Query, RequestSchema, ResponseSchema, Score, Texts
from shared.contracts import RerankRequest, RerankResult
from shared.errors import RerankqError


class WeaviateRequest(RequestSchema):
    """A query and the documents to score."""

    query: Query
    documents: Texts


class WeaviateScore(ResponseSchema):
    """A document and its score."""

    document: str
    score: Score


class WeaviateAnswer(ResponseSchema):
    """The scores, in the order of the request."""

    scores: list[WeaviateScore]


class WeaviateError(ResponseSchema):
    """An error."""

    error: str


class WeaviateDialect(Dialect):
    """The dialect under /weaviate."""

    name = "weaviate"
    paths = ("/rerank",)
    summary = "Score documents, in the order of the request"
    request_model = WeaviateRequest
    answer_models: ClassVar[tuple[type[BaseModel], ...]] = (WeaviateAnswer,)
    error_model = WeaviateError
    examples: ClassVar[dict[str, JsonObject]] = {
        "documents": {"query": examples.QUERY, "documents": examples.DOCUMENTS, "property": ""},
        "no-query": {"documents": examples.DOCUMENTS},
    }

    def parse(self, body: JsonObject) -> RerankRequest:
        body = without_nulls(body)
        body.pop("top_n", None)
        body.pop("top_k", None)
        query = read_query(body)
        return read_request(body, read_documents(body, ObjectHandling.REFUSED), query)

    def render(self, result: RerankResult) -> dict[str, Any]:
        in_order = sorted(result.rows, key=lambda row: row.index)
        return {"scores": [{"document": row.document.text, "score": row.score} for row in in_order]}

    def render_error(self, error: RerankqError, request_id: str = "") -> dict[str, Any]:
        return {"error": error.message}
