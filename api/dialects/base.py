"""What a dialect is, and the reading of a body that all of them share.

The rules that real clients force on every dialect: an explicit null is an absent field, an unknown field is ignored,
`"true"` is a bool and `"3"` a number, and the model is optional.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Protocol

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from api.dialects.rank_fields import RankFields
from shared.contracts import MAX_PRIORITY, Document, RerankRequest, RerankResult
from shared.errors import InvalidRequest, RerankqError

QUERY_REQUIRED = "query is required for rerank"
DOCUMENTS_REQUIRED = "documents are required for rerank"
TEXT_REQUIRED = "document text is required for rerank at index {}"
TOP_N_RANGE = "top_n must be at least 1"

JsonObject = Mapping[str, Any]


class Dialect(Protocol):
    """One way of speaking."""

    @property
    def name(self) -> str:
        """The prefix under which it is spoken, and what a job's record remembers."""

    @property
    def paths(self) -> Sequence[str]:
        """The rerank paths below the prefix."""

    def parse(self, body: JsonObject) -> RerankRequest:
        """Read a decoded JSON object. Raises InvalidRequest naming the field."""

    def render(self, result: RerankResult) -> Any:
        """The answer's body, ready for JSON."""

    def render_error(self, error: RerankqError) -> Any:
        """An error's body, ready for JSON."""


def _no_bool(value: Any) -> Any:
    """Pydantic would take true for 1."""
    if isinstance(value, bool):
        raise PydanticCustomError("number", "input should be a number, not a bool")
    return value


Number = Annotated[int, BeforeValidator(_no_bool)]


class CommonFields(BaseModel):
    """The fields, other than the query and the documents, that the dialects share; see RerankRequest."""

    model_config = ConfigDict(extra="ignore")

    model: Annotated[str, Field(min_length=1)] | None = None
    top_n: Number | None = None
    return_documents: bool = True
    raw_scores: bool = False
    instruction: Annotated[str, Field(min_length=1)] | None = None
    max_tokens_per_query: Annotated[Number, Field(ge=1)] | None = None
    max_tokens_per_doc: Annotated[Number, Field(ge=1)] | None = None
    max_chunks_per_doc: Annotated[
        Number, Field(ge=1, validation_alias=AliasChoices("max_chunks_per_doc", "max_chunk_per_doc"))
    ] = 1
    overlap_tokens: Annotated[Number, Field(ge=0)] | None = None
    priority: Annotated[Number, Field(ge=0, le=MAX_PRIORITY)] = 0


def without_nulls(body: JsonObject) -> dict[str, Any]:
    return {name: value for name, value in body.items() if value is not None}


def read_query(body: JsonObject) -> str:
    """The query. Raises InvalidRequest when it is absent, blank or no string."""
    query = body.get("query")
    if query is None or (isinstance(query, str) and not query.strip()):
        raise InvalidRequest(QUERY_REQUIRED, param="query")
    if not isinstance(query, str):
        raise InvalidRequest("query must be a string", param="query")
    return query


def read_documents(body: JsonObject, *, objects: bool = True) -> list[Document]:
    """The documents, strings or (with `objects`) objects. Raises InvalidRequest.

    An object has `text`, or fields that the body's `rank_fields` picks; and the caller's own `id` and `meta`.
    """
    documents = body.get("documents")
    if documents is None or documents == []:
        raise InvalidRequest(DOCUMENTS_REQUIRED, param="documents")
    if not isinstance(documents, list):
        raise InvalidRequest("documents must be a list", param="documents")
    rank_fields = RankFields.read(body, documents) if objects else None
    return [_read_document(index, document, objects, rank_fields) for index, document in enumerate(documents)]


def _read_document(index: int, document: Any, objects: bool, rank_fields: RankFields | None) -> Document:
    if isinstance(document, str):
        return Document.model_construct(text=document)
    param = f"documents[{index}]"
    if not objects or not isinstance(document, dict):
        allowed = "a string or an object with text" if objects else "a string"
        raise InvalidRequest(f"{param} must be {allowed}", param=param)
    if rank_fields is not None:
        own = {"text": rank_fields.render(index, document), "fields": document}
        document = own | {name: document[name] for name in ("id", "meta") if name in document}
    elif document.get("text") is None:
        raise InvalidRequest(TEXT_REQUIRED.format(index), param=f"{param}.text")
    else:
        document = {name: document[name] for name in ("text", "id", "meta") if name in document}
    try:
        return Document.model_validate(document)
    except ValidationError as error:
        raise _invalid(error, within=f"{param}.") from error


def read_request(body: JsonObject, documents: list[Document], query: str) -> RerankRequest:
    """The canonical request from the shared fields. Raises InvalidRequest."""
    try:
        fields = CommonFields.model_validate(body)
    except ValidationError as error:
        raise _invalid(error) from error
    if fields.top_n is not None and fields.top_n < 1:
        raise InvalidRequest(TOP_N_RANGE, param="top_n")
    return RerankRequest.model_construct(query=query, documents=documents, **fields.model_dump())


def _invalid(error: ValidationError, within: str = "") -> InvalidRequest:
    """The first thing wrong, in one sentence that names the field."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    # A union reports each of its members ("id.str", "id.int"): the field is the first part.
    field = within + str(first["loc"][0])
    return InvalidRequest(f"{field}: {first['msg'][0].lower()}{first['msg'][1:]}", param=field)
