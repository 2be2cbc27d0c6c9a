"""vLLM's rerank API, and the fields, texts and errors that its rerank and score APIs share.

A limit of 0 is none, and so is a `top_n` of 0. Content parts other than text are refused.
"""

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, Field

from api.dialects import examples
from api.dialects.base import Dialect
from api.dialects.request_fields import DOCUMENTS_REQUIRED, JsonObject, read_query, read_request, without_nulls
from api.dialects.schemas import (
    Index,
    Instruction,
    Model,
    PromptLimit,
    PromptUsage,
    Query,
    RequestSchema,
    ResponseSchema,
    Score,
    TruncationSide,
)
from api.http.error_responses import status_of
from shared.contracts import MAX_PRIORITY, Document, RerankRequest, RerankResult
from shared.errors import InvalidRequest, RerankqError

_ERROR_TYPES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    404: "NotFoundError",
    422: "UnprocessableEntityError",
    429: "RateLimitError",
    500: "InternalServerError",
    503: "ServiceUnavailableError",
}
_ZERO_IS_NONE = ("top_n", "max_tokens_per_query", "max_tokens_per_doc")
_Limit = Annotated[int, Field(ge=0)] | None


class TextPart(RequestSchema):
    """A part of a text."""

    type: Annotated[str, Field(pattern="^text$")]
    text: str


class TextContent(RequestSchema):
    """A text in parts."""

    content: Annotated[list[TextPart], Field(min_length=1)]


class VllmFields(RequestSchema):
    """The common fields of rerank and score requests."""

    model: Model = None
    use_activation: Annotated[bool | None, Field(description="False returns the model's own scores.")] = None
    truncate_prompt_tokens: PromptLimit = None
    truncation_side: TruncationSide = None
    max_tokens_per_query: _Limit = None
    max_tokens_per_doc: _Limit = None
    instruction: Instruction = None
    priority: Annotated[int | None, Field(description="Lower is more urgent; clamped to 0..999.")] = None


class VllmRerankRequest(VllmFields):
    """A query and the documents to rank."""

    query: Query
    documents: Annotated[list[str | TextContent], Field(min_length=1)] | TextContent | str
    top_n: _Limit = None


class VllmDocument(ResponseSchema):
    """A document as vLLM returns it."""

    text: str
    multi_modal: None


class VllmRow(ResponseSchema):
    """A ranked document."""

    index: Index
    document: VllmDocument
    relevance_score: Score


class VllmRerankAnswer(ResponseSchema):
    """The ranked documents, best first."""

    id: str
    model: str
    usage: PromptUsage
    results: list[VllmRow]


class VllmErrorObject(ResponseSchema):
    """`code` is the HTTP status."""

    message: str
    type: str
    param: str | None
    code: int


class VllmError(ResponseSchema):
    """An error."""

    error: VllmErrorObject


class VllmDialect(Dialect):
    """The common behaviour of vLLM's APIs."""

    error_model = VllmError

    def render_error(self, error: RerankqError, request_id: str = "") -> dict[str, Any]:
        status = status_of(error)
        kind = _ERROR_TYPES.get(status) or error.code
        return {"error": {"message": error.message, "type": kind, "param": error.param, "code": status}}


class VllmRerankDialect(VllmDialect):
    """The dialect under /vllm."""

    name = "vllm"
    paths = ("/rerank", "/v1/rerank", "/v2/rerank")
    request_model = VllmRerankRequest
    answer_models: ClassVar[tuple[type[BaseModel], ...]] = (VllmRerankAnswer,)
    examples: ClassVar[dict[str, JsonObject]] = {
        "documents": {"query": examples.QUERY, "documents": examples.DOCUMENTS, "top_n": 0},
        "no-documents": {"query": examples.QUERY, "documents": []},
    }

    def parse(self, body: JsonObject) -> RerankRequest:
        body = read_fields(body)
        if isinstance(body.get("query"), dict):
            body["query"] = read_text(body["query"], "query")
        query = read_query(body)
        if not (texts := read_texts(body.get("documents", []), "documents")):
            raise InvalidRequest(DOCUMENTS_REQUIRED, param="documents")
        return read_request(body, [Document.plain(text) for text in texts], query)

    def render(self, result: RerankResult) -> dict[str, Any]:
        tokens = result.prompt_tokens
        return {
            "id": result.id,
            "model": result.model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "results": [
                {
                    "index": row.index,
                    "document": {"text": row.document.text, "multi_modal": None},
                    "relevance_score": row.score,
                }
                for row in result.rows
            ],
        }


def read_fields(body: JsonObject) -> dict[str, Any]:
    """Convert vLLM's own fields of the body to the shared ones. Raises InvalidRequest."""
    body = without_nulls(body)
    for name in _ZERO_IS_NONE:
        if body.get(name) in (0, "0") and body[name] is not False:
            del body[name]
    if "use_activation" in body:
        body["raw_scores"] = not _is_true(body["use_activation"])
    priority = body.get("priority")
    if isinstance(priority, int) and not isinstance(priority, bool):
        body["priority"] = min(max(priority, 0), MAX_PRIORITY)
    return body


def read_texts(value: Any, field: str) -> list[str]:
    """One text or a list of them, each a string or content parts. Raises InvalidRequest."""
    if not isinstance(value, list):
        return [read_text(value, field)]
    return [text if isinstance(text, str) else read_text(text, f"{field}[{index}]") for index, text in enumerate(value)]


def read_text(value: Any, field: str) -> str:
    """A string, or the text of content parts. Raises InvalidRequest."""
    if isinstance(value, str):
        return value
    parts = value.get("content") if isinstance(value, dict) else None
    if not isinstance(parts, list) or not parts:
        raise InvalidRequest(f"{field} must be a string or have content parts", param=field)
    texts = [part["text"] for part in parts if _is_text(part)]
    if len(texts) < len(parts):
        raise InvalidRequest(f"{field}: only text can be scored here", param=field)
    return "\n".join(texts)


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _is_true(value: Any) -> bool:
    if value in (True, False):
        return bool(value)
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise InvalidRequest("use_activation: input should be a valid boolean", param="use_activation")
