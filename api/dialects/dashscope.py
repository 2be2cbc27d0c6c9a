"""DashScope's native API (Alibaba's Model Studio): query and documents are in `input`, options in `parameters`."""

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, Field

from api.dialects import examples
from api.dialects.base import Dialect
from api.dialects.request_fields import JsonObject, read_documents, read_query, read_request, without_nulls
from api.dialects.rows import rows_of, text_object
from api.dialects.schemas import (
    Instruction,
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
from shared.errors import InvalidRequest, ModelNotFound, RerankqError

_CODES = {
    400: "InvalidParameter",
    401: "InvalidApiKey",
    403: "AccessDenied",
    404: "NotFound",
    413: "InvalidParameter",
    422: "InvalidParameter",
    429: "Throttling",
    503: "ServiceUnavailable",
    504: "GatewayTimeout",
}


class DashscopeInput(RequestSchema):
    """A query and the documents to rank."""

    query: Query
    documents: Annotated[list[str | TextDocument], Field(min_length=1)]


class DashscopeParameters(RequestSchema):
    """The options."""

    top_n: TopN = None
    return_documents: Annotated[bool | None, Field(description="Default: false.")] = None
    instruct: Instruction = None


class DashscopeRequest(RequestSchema):
    """The input and the options."""

    model: Model = None
    input: DashscopeInput
    parameters: DashscopeParameters | None = None


class DashscopeOutput(ResponseSchema):
    """The ranked documents, best first."""

    results: list[RowWithText]


class DashscopeAnswer(ResponseSchema):
    """The output; `request_id` is the job's id."""

    output: DashscopeOutput
    usage: TotalUsage
    request_id: str


class DashscopeError(ResponseSchema):
    """An error; `code` is one of DashScope's."""

    code: str
    message: str
    request_id: str


class DashscopeDialect(Dialect):
    """The dialect under /dashscope, and at the root for bodies with an object as `input`."""

    name = "dashscope"
    paths = ("/api/v1/services/rerank/text-rerank/text-rerank",)
    request_model = DashscopeRequest
    answer_models: ClassVar[tuple[type[BaseModel], ...]] = (DashscopeAnswer,)
    error_model = DashscopeError
    examples: ClassVar[dict[str, JsonObject]] = {
        "documents": {
            "input": {"query": examples.QUERY, "documents": examples.DOCUMENTS},
            "parameters": {"top_n": 2, "return_documents": True},
        },
        "no-query": {"input": {"documents": examples.DOCUMENTS}},
    }

    def parse(self, body: JsonObject) -> RerankRequest:
        read = {"return_documents": False} | without_nulls(body) | _object(body, "parameters") | _object(body, "input")
        query = read_query(read)
        return read_request(read, read_documents(read), query, own_names={"instruction": "instruct"})

    def render(self, result: RerankResult) -> dict[str, Any]:
        output = {"results": rows_of(result, text_object)}
        return {"output": output, "usage": {"total_tokens": result.prompt_tokens}, "request_id": result.id}

    def render_error(self, error: RerankqError, request_id: str = "") -> dict[str, Any]:
        code = "Model.NotExist" if isinstance(error, ModelNotFound) else _CODES.get(status_of(error), "InternalError")
        return {"code": code, "message": error.message, "request_id": request_id}


def _object(body: JsonObject, name: str) -> dict[str, Any]:
    """The fields of the object in that field; empty when it is absent. Raises InvalidRequest."""
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequest(f"{name} must be an object", param=name)
    return without_nulls(value)
