"""Text Embeddings Inference: documents are `texts`, and the answer is a bare list."""

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
    Index,
    MayTruncate,
    Omitted,
    Query,
    RequestSchema,
    ResponseSchema,
    Score,
    Texts,
    TruncationDirection,
)
from api.http.error_responses import status_of
from shared.contracts import RerankRequest, RerankResult
from shared.errors import (
    InternalError,
    InvalidRequest,
    Overloaded,
    RateLimited,
    RerankqError,
    ScoringFailed,
    ServiceError,
    TextTooLong,
    TooManyDocuments,
)
from shared.models import ModelSpec

_NO_TEXTS = "`texts` cannot be empty"
_MAX_INPUT_LENGTH = 512
"""What TEI's clients assume when the value is absent."""

ErrorType = Literal["Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty"]


class TeiRequest(RequestSchema):
    """A query and the documents to rank."""

    query: Query
    texts: Texts
    raw_scores: Annotated[bool | None, Field(description="The model's own scores. Default: false.")] = None
    return_text: Annotated[bool | None, Field(description="Default: false.")] = None
    truncate: MayTruncate = None
    truncation_direction: TruncationDirection = None


class TeiRank(ResponseSchema):
    """A ranked text, with its content when requested."""

    index: Index
    score: Score
    text: str | Omitted = None


class TeiAnswer(RootModel[list[TeiRank]]):
    """The texts, best first."""


class TeiError(ResponseSchema):
    """An error."""

    error: str
    error_type: ErrorType


class TeiDialect(Dialect):
    """The dialect under /tei, and at the root for bodies with `texts`."""

    name = "tei"
    paths = ("/rerank",)
    request_model = TeiRequest
    answer_models: ClassVar[tuple[type[BaseModel], ...]] = (TeiAnswer,)
    error_model = TeiError
    examples: ClassVar[dict[str, JsonObject]] = {
        "texts": {"query": examples.QUERY, "texts": examples.DOCUMENTS, "return_text": True},
        "no-texts": {"query": examples.QUERY, "texts": []},
        "no-query": {"texts": examples.DOCUMENTS},
    }

    def parse(self, body: JsonObject) -> RerankRequest:
        body = {"return_documents": False} | without_nulls(body)
        query = read_query(body)
        documents = read_documents(body, ObjectHandling.REFUSED, field="texts", required=_NO_TEXTS)
        return read_request(body, documents, query, own_names={"return_documents": "return_text"})

    def render(self, result: RerankResult) -> list[dict[str, Any]]:
        return rows_of(result, text_of, score="score", name="text")

    def render_error(self, error: RerankqError, request_id: str = "") -> dict[str, Any]:
        message = error.message
        if isinstance(error, TextTooLong):
            message = f"`inputs` must have less than {error.limit} tokens. Given: {error.tokens}"
        return {"error": message, "error_type": _type_of(error)}

    def status_of(self, error: RerankqError) -> int:
        match error:
            case InvalidRequest(message=message) if message == _NO_TEXTS:
                return 400
            case TextTooLong() | TooManyDocuments():
                return 413
            case InvalidRequest():
                # TEI's status for a body that it cannot read.
                return 422
            case ScoringFailed():
                return 424
            case _:
                return status_of(error)


def _type_of(error: RerankqError) -> ErrorType:
    match error:
        case InvalidRequest(message=message) if message == _NO_TEXTS:
            return "Empty"
        case TextTooLong() | TooManyDocuments():
            return "Validation"
        case InvalidRequest():
            return "Tokenizer"
        case Overloaded() | RateLimited():
            return "Overloaded"
        case ScoringFailed() | InternalError():
            return "Backend"
        case ServiceError():
            return "Unhealthy"
        case _:
            return "Validation"


class Labels(ResponseSchema):
    """The classes of the model: a reranker has one."""

    id2label: dict[str, str]
    label2id: dict[str, int]


class ModelType(ResponseSchema):
    """The type of the model."""

    reranker: Labels


class TeiInfo(ResponseSchema):
    """The served model, in TEI's format."""

    model_id: str
    model_sha: str | None
    model_dtype: str
    served_model_name: str
    model_type: ModelType
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int
    max_batch_requests: int | None
    max_client_batch_size: int
    auto_truncate: bool
    tokenization_workers: int
    version: str
    sha: str | None
    docker_label: str | None


def describe_model(
    spec: ModelSpec,
    *,
    max_documents: int,
    max_waiting: int,
    shard_tokens: int,
    version: str,
    dtype: str | None = None,
) -> dict[str, Any]:
    """The body of GET /info. `max_waiting`: the most callers that may wait for a result at once.

    `dtype` is the precision of the workers, None when no worker has run yet.
    """
    length = spec.engine_args.get("max_model_len")
    return {
        "model_id": spec.name,
        "model_sha": spec.revision,
        "model_dtype": dtype or str(spec.engine_args.get("dtype", "auto")),
        "served_model_name": spec.name,
        "model_type": {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}},
        "max_concurrent_requests": max_waiting,
        "max_input_length": length if isinstance(length, int) else _MAX_INPUT_LENGTH,
        "max_batch_tokens": shard_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": max_documents,
        "auto_truncate": True,
        "tokenization_workers": 1,
        "version": version,
        "sha": None,
        "docker_label": None,
    }
