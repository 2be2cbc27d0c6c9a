"""Infinity's schema: documents are strings, and are returned as strings. Nebul uses the same schema.

What Infinity says of its validation is FastAPI's list, and a model it does not know is a wrong request to it. Nebul's
errors are not documented: there they read like the root's.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field, RootModel

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
    Model,
    Omitted,
    PromptUsage,
    Query,
    RequestSchema,
    ResponseSchema,
    Row,
    Texts,
    TopN,
)
from api.dialects.superset import SupersetError
from api.http.error_responses import status_of, superset_body
from shared.contracts import RerankRequest, RerankResult
from shared.errors import (
    InvalidRequest,
    MethodNotAllowed,
    ModelNotFound,
    RerankqError,
    RouteNotFound,
    Unauthorized,
)


class InfinityRequest(RequestSchema):
    """A query and the documents to rank."""

    model: Model = None
    query: Query
    documents: Texts
    top_n: TopN = None
    return_documents: Annotated[bool | None, Field(description="Default: false.")] = None
    raw_scores: Annotated[bool | None, Field(description="The model's own scores. Default: false, 0..1.")] = None


class InfinityRow(Row):
    """A ranked document, with its content when requested."""

    document: str | Omitted = None


class InfinityAnswer(ResponseSchema):
    """The ranked documents, best first."""

    object: Literal["rerank"]
    results: list[InfinityRow]
    model: str
    usage: PromptUsage
    id: str
    created: int


class InfinityErrorObject(ResponseSchema):
    """`code` is the HTTP status."""

    message: str
    type: None
    param: None
    code: int


class InfinityFault(ResponseSchema):
    """An error."""

    error: InfinityErrorObject


class InfinityInvalidField(ResponseSchema):
    """One validation error and its location."""

    type: str
    loc: list[str | int]
    msg: str


class InfinityInvalid(ResponseSchema):
    """The validation errors of the body."""

    detail: list[InfinityInvalidField]


class InfinityError(RootModel[InfinityFault | InfinityInvalid | DetailError]):
    """An error."""


class InfinityDialect(Dialect):
    """The dialect under /infinity."""

    name = "infinity"
    paths: ClassVar[tuple[str, ...]] = ("/rerank", "/v1/rerank")
    request_model = InfinityRequest
    answer_models: ClassVar[tuple[type[BaseModel], ...]] = (InfinityAnswer,)
    error_model: ClassVar[type[BaseModel]] = InfinityError
    examples: ClassVar[dict[str, JsonObject]] = {
        "documents": {"query": examples.QUERY, "documents": examples.DOCUMENTS, "top_n": 2},
        "with-documents": {"query": examples.QUERY, "documents": examples.DOCUMENTS, "return_documents": True},
        "no-query": {"documents": examples.DOCUMENTS},
    }

    def parse(self, body: JsonObject) -> RerankRequest:
        body = {"return_documents": False} | without_nulls(body)
        query = read_query(body)
        return read_request(body, read_documents(body, ObjectHandling.REFUSED), query)

    def render(self, result: RerankResult) -> dict[str, Any]:
        tokens = result.prompt_tokens
        return {
            "object": "rerank",
            "results": rows_of(result, text_of),
            "model": result.model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "id": result.id,
            "created": result.created,
        }

    def render_error(self, error: RerankqError, request_id: str = "") -> dict[str, Any]:
        match error:
            case InvalidRequest():
                loc = ["body", *([error.param] if error.param else [])]
                return {"detail": [{"type": "value_error", "loc": loc, "msg": error.message}]}
            case Unauthorized() | RouteNotFound() | MethodNotAllowed():
                return {"detail": error.message}
            case _:
                fault = {"message": error.message, "type": None, "param": None, "code": self.status_of(error)}
                return {"error": fault}

    def status_of(self, error: RerankqError) -> int:
        match error:
            case InvalidRequest():
                return 422
            case ModelNotFound():
                return 400
            case _:
                return status_of(error)


class NebulDialect(InfinityDialect):
    """The dialect under /nebul."""

    name = "nebul"
    paths = ("/v1/rerank", "/rerank")
    error_model = SupersetError

    def render_error(self, error: RerankqError, request_id: str = "") -> dict[str, Any]:
        return superset_body(error)

    def status_of(self, error: RerankqError) -> int:
        return status_of(error)
