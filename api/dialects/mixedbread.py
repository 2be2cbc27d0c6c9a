"""Mixedbread's API: documents are `input`, rows are in `data`, and the options are returned.

`rewrite_query` is ignored. Mixedbread's errors are not documented: here they read like the root's.
"""

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
from api.dialects.rows import as_sent, rows_of
from api.dialects.schemas import (
    Index,
    Model,
    Omitted,
    Query,
    RankFieldNames,
    RequestSchema,
    ResponseSchema,
    Score,
    Tokens,
    TopN,
)
from api.dialects.superset import SupersetError
from api.http.error_responses import superset_body
from shared.contracts import RerankRequest, RerankResult
from shared.errors import RerankqError

_INPUT_REQUIRED = "input is required for rerank"


class MixedbreadRequest(RequestSchema):
    """A query and the documents to rank."""

    model: Model = None
    query: Query
    input: Annotated[
        list[str | dict[str, Any]], Field(min_length=1, description="Strings, or objects with the `rank_fields`.")
    ]
    rank_fields: RankFieldNames = None
    top_k: TopN = None
    return_input: Annotated[bool | None, Field(description="Default: false.")] = None
    rewrite_query: Annotated[Any, Field(description="Ignored.")] = None


class MixedbreadRow(ResponseSchema):
    """A ranked document, with its content when requested."""

    index: Index
    score: Score
    input: str | dict[str, Any] | Omitted = None
    object: Literal["rank_result"]


class MixedbreadUsage(ResponseSchema):
    """The tokens that the request used."""

    prompt_tokens: Tokens
    total_tokens: Tokens
    completion_tokens: int


class MixedbreadAnswer(ResponseSchema):
    """The documents, best first; `top_k` is their number."""

    usage: MixedbreadUsage
    model: str
    data: list[MixedbreadRow]
    object: Literal["list"]
    top_k: int
    return_input: bool


class MixedbreadDialect(Dialect):
    """The dialect under /mixedbread, and at the root for bodies with a list as `input`."""

    name = "mixedbread"
    paths = ("/v1/reranking",)
    aliases = ("/reranking",)
    request_model = MixedbreadRequest
    answer_models: ClassVar[tuple[type[BaseModel], ...]] = (MixedbreadAnswer,)
    error_model = SupersetError
    examples: ClassVar[dict[str, JsonObject]] = {
        "input": {"query": examples.QUERY, "input": examples.DOCUMENTS, "top_k": 2, "return_input": True},
        "no-input": {"query": examples.QUERY, "input": []},
    }

    def parse(self, body: JsonObject) -> RerankRequest:
        body = {"return_documents": False} | without_nulls(body)
        query = read_query(body)
        documents = read_documents(body, ObjectHandling.WHOLE, field="input", required=_INPUT_REQUIRED)
        return read_request(body, documents, query, own_names={"return_documents": "return_input"})

    def render(self, result: RerankResult) -> dict[str, Any]:
        tokens = result.prompt_tokens
        rows = rows_of(result, as_sent, score="score", name="input")
        return {
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0},
            "model": result.model,
            "data": [row | {"object": "rank_result"} for row in rows],
            "object": "list",
            "top_k": len(rows),
            "return_input": result.return_documents,
        }

    def render_error(self, error: RerankqError, request_id: str = "") -> dict[str, Any]:
        return superset_body(error)
