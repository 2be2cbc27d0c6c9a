"""NVIDIA's ranking API, of the NeMo Retriever NIMs: passages are objects, and all of them are ranked, by logit.

Images are ignored.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field

from api.dialects import examples
from api.dialects.base import Dialect
from api.dialects.request_fields import (
    QUERY_REQUIRED,
    JsonObject,
    read_documents,
    read_query,
    read_request,
    without_nulls,
)
from api.dialects.rows import rows_of
from api.dialects.schemas import Index, Model, Query, RawScore, RequestSchema, ResponseSchema, TextDocument, Truncate
from api.http.error_responses import status_of
from shared.contracts import RerankRequest, RerankResult
from shared.errors import InvalidRequest, RequestError, RerankqError, TextTooLong

_NO_PASSAGES = "passages are required for ranking"


class NvidiaQuery(RequestSchema):
    """The query."""

    text: Query


class NvidiaRequest(RequestSchema):
    """A query and the documents to rank."""

    model: Model = None
    query: NvidiaQuery
    passages: Annotated[list[TextDocument], Field(min_length=1)]
    truncate: Truncate = None


class NvidiaRanking(ResponseSchema):
    """A ranked passage."""

    index: Index
    logit: RawScore


class NvidiaAnswer(ResponseSchema):
    """The passages, best first."""

    rankings: list[NvidiaRanking]


class NvidiaError(ResponseSchema):
    """An error."""

    object: Literal["error"]
    message: str
    detail: str
    type: str


class NvidiaDialect(Dialect):
    """The dialect under /nvidia, and at the root for bodies with passages."""

    name = "nvidia"
    paths = ("/v1/ranking",)
    # The second one is the path of models that NVIDIA hosts; the body names the model as well.
    aliases = ("/ranking", "/v1/retrieval/{model:path}/reranking")
    request_model = NvidiaRequest
    answer_models: ClassVar[tuple[type[BaseModel], ...]] = (NvidiaAnswer,)
    error_model = NvidiaError
    examples: ClassVar[dict[str, JsonObject]] = {
        "passages": {
            "query": {"text": examples.QUERY},
            "passages": [{"text": text} for text in examples.DOCUMENTS],
            "truncate": "END",
        },
        "no-passages": {"query": {"text": examples.QUERY}, "passages": []},
    }

    def parse(self, body: JsonObject) -> RerankRequest:
        body = {"raw_scores": True} | without_nulls(body) | {"return_documents": False}
        if isinstance(body.get("query"), dict):
            text = body["query"].get("text")
            if text is None:
                raise InvalidRequest(QUERY_REQUIRED, param="query.text")
            body["query"] = text
        query = read_query(body)
        return read_request(body, read_documents(body, field="passages", required=_NO_PASSAGES), query)

    def render(self, result: RerankResult) -> dict[str, Any]:
        return {"rankings": rows_of(result, score="logit")}

    def render_error(self, error: RerankqError, request_id: str = "") -> dict[str, Any]:
        kind = "invalid_request_error" if isinstance(error, RequestError) else error.code
        message = error.message
        if isinstance(error, TextTooLong):
            message = f"Input length {error.tokens} exceeds maximum allowed token size {error.limit}"
        return {"object": "error", "message": message, "detail": message, "type": kind}

    def status_of(self, error: RerankqError) -> int:
        is_malformed = isinstance(error, InvalidRequest) and not isinstance(error, TextTooLong)
        return 422 if is_malformed else status_of(error)
