"""Cohere's API, versions 1 and 2. The SDK adds the version's path to the base URL itself."""

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
    AtLeastOne,
    Model,
    ObjectEcho,
    Omitted,
    Priority,
    Query,
    RankFieldNames,
    RequestSchema,
    ResponseSchema,
    Row,
    Texts,
    TopN,
)
from api.dialects.superset import ApiVersion, BilledUnits, MetaTokens
from shared.contracts import RerankRequest, RerankResult
from shared.errors import InvalidRequest, RerankqError

V2_MAX_DOCUMENTS = 10_000
_V1_CHUNKS = 10
_V2_TOKENS_PER_DOC = 4096


class CohereV1Request(RequestSchema):
    """A query and the documents to rank."""

    query: Query
    documents: Annotated[
        list[str | dict[str, Any]], Field(min_length=1, description="Strings, or objects with the `rank_fields`.")
    ]
    model: Model = None
    top_n: TopN = None
    rank_fields: RankFieldNames = None
    return_documents: Annotated[bool | None, Field(description="Default: false.")] = None
    max_chunks_per_doc: Annotated[
        AtLeastOne, Field(description="The maximum number of windows of a long document that are scored. Default: 10.")
    ] = None


class CohereV2Request(RequestSchema):
    """A query and the documents to rank."""

    model: Model = None
    query: Query
    documents: Texts
    top_n: TopN = None
    max_tokens_per_doc: Annotated[AtLeastOne, Field(description="Default: 4096.")] = None
    priority: Priority = None


class CohereV1Meta(ResponseSchema):
    """Metadata of the call."""

    api_version: ApiVersion
    billed_units: BilledUnits
    tokens: MetaTokens


class CohereV2Meta(ResponseSchema):
    """Metadata of the call."""

    api_version: ApiVersion
    billed_units: BilledUnits


class CohereV1Row(Row):
    """A ranked document, with its content when requested."""

    document: ObjectEcho | Omitted = None


class CohereV1Answer(ResponseSchema):
    """The ranked documents, best first."""

    id: str
    results: list[CohereV1Row]
    meta: CohereV1Meta


class CohereV2Answer(ResponseSchema):
    """The ranked documents, best first."""

    id: str
    results: list[Row]
    meta: CohereV2Meta


class CohereError(ResponseSchema):
    """An error; `id` is the request's."""

    id: str
    message: str


class _CohereDialect(Dialect):
    """What both versions share: their errors."""

    error_model = CohereError

    def render_error(self, error: RerankqError, request_id: str = "") -> dict[str, Any]:
        return {"id": request_id, "message": error.message}


class CohereV1Dialect(_CohereDialect):
    """The dialect under /cohere/v1."""

    name = "cohere-v1"
    paths = ("/v1/rerank",)
    request_model = CohereV1Request
    answer_models: ClassVar[tuple[type[BaseModel], ...]] = (CohereV1Answer,)
    examples: ClassVar[dict[str, JsonObject]] = {
        "documents": {"query": examples.QUERY, "documents": examples.DOCUMENTS, "top_n": 2, "return_documents": True},
        "no-query": {"documents": examples.DOCUMENTS},
    }

    def parse(self, body: JsonObject) -> RerankRequest:
        body = {"return_documents": False} | without_nulls(body)
        if "max_chunk_per_doc" not in body:
            body.setdefault("max_chunks_per_doc", _V1_CHUNKS)
        query = read_query(body)
        return read_request(body, read_documents(body, ObjectHandling.WHOLE), query)

    def render(self, result: RerankResult) -> dict[str, Any]:
        tokens = {"input_tokens": result.prompt_tokens, "output_tokens": 0}
        return {
            "id": result.id,
            "results": rows_of(result, echo),
            "meta": {"api_version": {"version": "1"}, "billed_units": {"search_units": 1}, "tokens": tokens},
        }


class CohereV2Dialect(_CohereDialect):
    """The dialect under /cohere/v2."""

    name = "cohere-v2"
    paths = ("/v2/rerank",)
    aliases = ("/rerank",)
    request_model = CohereV2Request
    answer_models: ClassVar[tuple[type[BaseModel], ...]] = (CohereV2Answer,)
    examples: ClassVar[dict[str, JsonObject]] = {
        "documents": {"query": examples.QUERY, "documents": examples.DOCUMENTS, "top_n": 2},
        "object": {"query": examples.QUERY, "documents": [{"text": "hi"}]},
    }

    def parse(self, body: JsonObject) -> RerankRequest:
        body = {"max_tokens_per_doc": _V2_TOKENS_PER_DOC} | without_nulls(body)
        query = read_query(body)
        documents = read_documents(body, ObjectHandling.REFUSED)
        if len(documents) > V2_MAX_DOCUMENTS:
            raise InvalidRequest(
                f"documents: at most {V2_MAX_DOCUMENTS} in one request, got {len(documents)}", param="documents"
            )
        return read_request(body, documents, query)

    def render(self, result: RerankResult) -> dict[str, Any]:
        return {
            "id": result.id,
            "results": rows_of(result),
            "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
        }
