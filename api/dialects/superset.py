"""The superset: one answer that clients of Jina, Cohere, vLLM, GPUStack, Bifrost and Voyage can read.

Accepts documents as strings, as objects with `text`, `id` and `meta`, or as objects of which `rank_fields` selects
fields; echoes them as objects. `root.py` adds whose bodies are answered in another way.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, Field

from api.dialects import examples
from api.dialects.base import Dialect
from api.dialects.request_fields import (
    CommonFields,
    JsonObject,
    read_documents,
    read_query,
    read_request,
    without_nulls,
)
from api.dialects.rows import echo
from api.dialects.schemas import (
    AtLeastOne,
    Instruction,
    MayTruncate,
    Model,
    ObjectEcho,
    Omitted,
    Parameters,
    Priority,
    PromptLimit,
    Query,
    RankFieldNames,
    RequestSchema,
    ResponseSchema,
    Row,
    Score,
    TextDocument,
    Tokens,
    TopN,
    Truncate,
    TruncationDirection,
    TruncationSide,
    Webhook,
)
from api.http.error_responses import superset_body
from api.webhooks.targets import read_target
from shared.contracts import RankedRow, RerankRequest, RerankResult
from shared.errors import RerankqError
from shared.webhooks import WebhookTarget

MAX_FALLBACKS = 16


def _names(value: Any) -> Any:
    """Accept models as gateways send them: `provider/model`, or an object with both."""
    if not isinstance(value, list):
        return value
    return [
        f"{name['provider']}/{name['model']}" if isinstance(name, dict) and {"provider", "model"} <= set(name) else name
        for name in value
    ]


Fallbacks = Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=MAX_FALLBACKS)]


class RoutedFields(CommonFields):
    """The shared fields, and the models to try after `model`."""

    fallbacks: Annotated[Fallbacks, BeforeValidator(_names), Field(default_factory=list)]


class SupersetDocument(TextDocument):
    """A document as an object; `id` and `meta` are the caller's and are returned."""

    id: str | int | None = None
    meta: Any = None


class SupersetRequest(RequestSchema):
    """A query and the documents to rank. `"true"` is read as a bool, `"3"` as a number, and null as an absent field."""

    query: Query
    documents: Annotated[list[str | SupersetDocument | dict[str, Any]], Field(min_length=1)]
    """Strings, objects with a `text`, or any objects with `rank_fields`."""
    model: Model = None
    top_n: TopN = None
    return_documents: Annotated[bool | None, Field(description="Default: true.")] = None
    raw_scores: Annotated[bool | None, Field(description="The model's own scores. Default: false, 0..1.")] = None
    rank_fields: RankFieldNames = None
    instruction: Instruction = None
    max_tokens_per_query: AtLeastOne = None
    max_tokens_per_doc: AtLeastOne = None
    max_chunks_per_doc: Annotated[
        AtLeastOne,
        Field(description="Score a long document in up to so many windows; the best one counts. Default: 1."),
    ] = None
    overlap_tokens: Annotated[int, Field(ge=0)] | None = None
    truncate: Truncate = None
    truncation: MayTruncate = None
    truncation_side: TruncationSide = None
    truncation_direction: TruncationDirection = None
    parameters: Parameters | None = None
    truncate_prompt_tokens: PromptLimit = None
    priority: Priority = None
    fallbacks: Annotated[
        Fallbacks | None, Field(description="Models to try, in order, when one is unknown, unavailable or fails.")
    ] = None
    webhook: Webhook = None


class Window(ResponseSchema):
    """The character range of the document's text that scored best."""

    start: int
    end: int


class SupersetRow(Row):
    """A ranked document. `error` tells why it could not be scored; it then sorts last."""

    truncated: Annotated[bool, Field(description="Something of it was never read.")] | Omitted = None
    window: Window | Omitted = None
    error: str | Omitted = None


class SupersetResult(SupersetRow):
    """A ranked document, with its content when requested."""

    document: ObjectEcho | Omitted = None


class SupersetData(SupersetRow):
    """A ranked document with its score under both names that clients read."""

    score: Score


class SupersetUsage(ResponseSchema):
    """The tokens that the request used; `cached_pairs` were answered from the cache."""

    prompt_tokens: Tokens
    completion_tokens: int
    total_tokens: Tokens
    rerank_units: Annotated[int, Field(description="As in Pinecone's API.")]
    cached_pairs: int | Omitted = None


class ApiVersion(ResponseSchema):
    """As in Cohere's API."""

    version: str


class BilledUnits(ResponseSchema):
    """As in Cohere's API."""

    search_units: int


class MetaTokens(ResponseSchema):
    """As in Cohere's API."""

    input_tokens: Tokens
    output_tokens: int


class Meta(ResponseSchema):
    """As in Cohere's API."""

    api_version: ApiVersion
    billed_units: BilledUnits
    tokens: MetaTokens


class SupersetAnswer(ResponseSchema):
    """`results`, and in `data` the same rows with `score` and without documents. `id` is the job's."""

    id: str
    object: Literal["rerank"]
    created: int
    model: str
    results: list[SupersetResult]
    data: list[SupersetData]
    usage: SupersetUsage
    meta: Meta


class ErrorObject(ResponseSchema):
    """`type` is stable, `param` names the field, `code` is the HTTP status."""

    message: str
    type: str
    param: str | None
    code: int


class SupersetError(ResponseSchema):
    """An error, in three places, because clients read different ones."""

    error: ErrorObject
    message: str
    detail: str


class SupersetDialect(Dialect):
    """The dialect at the root, unless the operator selects another one."""

    name = "superset"
    paths: ClassVar[tuple[str, ...]] = ("/v1/rerank", "/rerank", "/v2/rerank")
    aliases: ClassVar[tuple[str, ...]] = (
        *("/reranking", "/reranks", "/v1/reranks"),
        *("/models/rerank", "/v1/models/rerank"),
    )
    request_model = SupersetRequest
    answer_models: ClassVar[tuple[type[BaseModel], ...]] = (SupersetAnswer,)
    error_model = SupersetError
    examples: ClassVar[dict[str, JsonObject]] = {
        "strings": {"query": examples.QUERY, "documents": examples.DOCUMENTS, "top_n": 2},
        "objects": {
            "query": examples.QUERY,
            "documents": [{"id": "doc-1", "text": examples.DOCUMENTS[1], "meta": {"page": 3}}, examples.DOCUMENTS[0]],
        },
        "no-query": {"query": " ", "documents": examples.DOCUMENTS},
    }

    def parse(self, body: JsonObject) -> RerankRequest:
        body = _all_fields(without_nulls(body))
        query = read_query(body)
        return read_request(body, read_documents(body), query, RoutedFields)

    def read_webhook(self, body: JsonObject) -> WebhookTarget | None:
        return None if (given := body.get("webhook")) is None else read_target(given)

    def render(self, result: RerankResult) -> dict[str, Any]:
        rows = [_row(row) for row in result.rows]
        results = rows
        if result.return_documents:
            results = [base | {"document": echo(row)} for base, row in zip(rows, result.rows, strict=True)]
        tokens = result.prompt_tokens
        usage = {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens, "rerank_units": 1}
        cached = {"cached_pairs": result.cached_pairs} if result.cached_pairs else {}
        return {
            "id": result.id,
            "object": "rerank",
            "created": result.created,
            "model": result.model,
            "results": results,
            "data": [row | {"score": row["relevance_score"]} for row in rows],
            "usage": usage | cached,
            "meta": {
                "api_version": {"version": "2"},
                "billed_units": {"search_units": 1},
                "tokens": {"input_tokens": tokens, "output_tokens": 0},
            },
        }

    def render_error(self, error: RerankqError, request_id: str = "") -> dict[str, Any]:
        return superset_body(error)


def _all_fields(body: dict[str, Any]) -> dict[str, Any]:
    """The body with all fields as `rank_fields` if its documents are objects without a text, as in Together's API."""
    documents = body.get("documents")
    if body.get("rank_fields", []) != [] or not isinstance(documents, list) or not documents:
        return body
    if not all(isinstance(document, dict) and document.get("text") is None for document in documents):
        return body
    names = (name for document in documents for name, value in document.items() if name and value is not None)
    return body | {"rank_fields": [name for name in dict.fromkeys(names) if name not in ("id", "meta")]}


def _row(row: RankedRow) -> dict[str, Any]:
    rendered: dict[str, Any] = {"index": row.index, "relevance_score": row.score}
    if row.truncated:
        rendered["truncated"] = True
    if row.window is not None:
        rendered["window"] = {"start": row.window[0], "end": row.window[1]}
    if row.error is not None:
        rendered["error"] = row.error
    return rendered
