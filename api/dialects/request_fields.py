"""Parses the request fields that all dialects share.

Real clients require these rules for every dialect: an explicit null is an absent field, an unknown field is ignored,
`"true"` is a bool and `"3"` a number, and the model is optional.
"""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from api.dialects.rank_fields import RankFields
from api.dialects.truncation import check_overlap, read_truncation
from shared.contracts import MAX_PRIORITY, Document, RerankRequest
from shared.errors import InvalidRequest

QUERY_REQUIRED = "query is required for rerank"
DOCUMENTS_REQUIRED = "documents are required for rerank"
TEXT_REQUIRED = "document text is required for rerank at index {}"
AT_LEAST_ONE = "{} must be at least 1"

JsonObject = Mapping[str, Any]


class ObjectHandling(Enum):
    """How object documents are handled: refused; only `text`, `id` and `meta` used; or returned whole.

    In the second case `rank_fields` may select other fields to score; the object is then returned whole, too.
    """

    REFUSED = "refused"
    TAKEN = "taken"
    WHOLE = "whole"


def _no_bool(value: Any) -> Any:
    """Refuse bools, which Pydantic would accept as 0 or 1."""
    if isinstance(value, bool):
        raise PydanticCustomError("number", "input should be a number, not a bool")
    return value


def _named(value: Any) -> Any:
    """Treat an empty name, as sent by empty form fields, as absent."""
    return None if isinstance(value, str) and not value.strip() else value


Number = Annotated[int, BeforeValidator(_no_bool)]


class CommonFields(BaseModel):
    """The fields, except query and documents, that every dialect accepts; see RerankRequest."""

    model_config = ConfigDict(extra="ignore")

    model: Annotated[str | None, BeforeValidator(_named)] = None
    top_n: Annotated[Number | None, Field(validation_alias=AliasChoices("top_n", "top_k"))] = None
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
    """The query. Raises InvalidRequest when it is absent, blank or not a string."""
    query = body.get("query")
    if query is None or (isinstance(query, str) and not query.strip()):
        raise InvalidRequest(QUERY_REQUIRED, param="query")
    if not isinstance(query, str):
        raise InvalidRequest("query must be a string", param="query")
    return query


def read_documents(
    body: JsonObject,
    objects: ObjectHandling = ObjectHandling.TAKEN,
    *,
    field: str = "documents",
    required: str = DOCUMENTS_REQUIRED,
) -> list[Document]:
    """The documents in `field`, strings or objects. Raises InvalidRequest; without documents its message is `required`.

    An object has `text`, or fields that the body's `rank_fields` selects.
    """
    documents = body.get(field)
    if documents is None or documents == []:
        raise InvalidRequest(required, param=field)
    if not isinstance(documents, list):
        raise InvalidRequest(f"{field} must be a list", param=field)
    rank_fields = None if objects is ObjectHandling.REFUSED else RankFields.read(body, documents)
    return [
        Document.plain(document)
        if isinstance(document, str)
        else _read_object(document, index, objects, rank_fields, field)
        for index, document in enumerate(documents)
    ]


def _read_object(
    document: Any, index: int, objects: ObjectHandling, rank_fields: RankFields | None, field: str
) -> Document:
    param = f"{field}[{index}]"
    if objects is ObjectHandling.REFUSED or not isinstance(document, dict):
        allowed = "a string" if objects is ObjectHandling.REFUSED else "a string or an object with text"
        raise InvalidRequest(f"{param} must be {allowed}", param=param)
    own = {name: document[name] for name in ("id", "meta") if name in document}
    if rank_fields is not None:
        own |= {"text": rank_fields.render(param, document), "fields": document}
    elif document.get("text") is None:
        raise InvalidRequest(TEXT_REQUIRED.format(index), param=f"{param}.text")
    elif objects is ObjectHandling.WHOLE:
        own = {"text": document["text"], "fields": document}
    else:
        own["text"] = document["text"]
    try:
        return Document.model_validate(own)
    except ValidationError as error:
        raise invalid(error, within=f"{param}.") from error


def read_request(
    body: JsonObject,
    documents: list[Document],
    query: str,
    fields: type[CommonFields] = CommonFields,
    own_names: JsonObject = MappingProxyType({}),
) -> RerankRequest:
    """The canonical request from the shared fields, and those of `fields`. Raises InvalidRequest.

    `own_names`: what the dialect calls some of the shared fields. An error names a field as the body does.
    """
    own_names = {shared: own for shared, own in own_names.items() if own in body}
    try:
        read = fields.model_validate({**body, **{shared: body[own] for shared, own in own_names.items()}})
    except ValidationError as error:
        raise invalid(error, own_names=own_names) from error
    if read.top_n is not None and read.top_n < 1:
        name = "top_n" if "top_n" in body else "top_k"
        raise InvalidRequest(AT_LEAST_ONE.format(name), param=name)
    truncation = read_truncation(body)
    sizes = (read.max_tokens_per_doc, truncation.get("max_prompt_tokens"))
    check_overlap(read.overlap_tokens, read.max_chunks_per_doc, *sizes)
    return RerankRequest.model_construct(query=query, documents=documents, **read.model_dump(), **truncation)


def invalid(error: ValidationError, within: str = "", own_names: JsonObject = MappingProxyType({})) -> InvalidRequest:
    """The first validation error as one sentence that names the field."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    # A union reports each of its members ("id.str", "id.int"): the field is the first part.
    name = str(first["loc"][0])
    field = within + own_names.get(name, name)
    return InvalidRequest(f"{field}: {first['msg'][0].lower()}{first['msg'][1:]}", param=field)
