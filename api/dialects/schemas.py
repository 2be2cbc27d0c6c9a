"""What the OpenAPI document says of fields and bodies that several dialects have. Validates nothing at run time."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from shared.contracts import MAX_PRIORITY

Absent = SkipJsonSchema[None]
"""`X | Absent = None`: the field is an X, or it is not there; it is never null."""


def _without_null_defaults(schema: dict[str, Any]) -> None:
    for field in schema.get("properties", {}).values():
        if field.get("default", "") is None:
            del field["default"]


class RequestSchema(BaseModel):
    """A request's body. Fields that are not named are ignored."""

    model_config = ConfigDict(json_schema_extra=_without_null_defaults)


class ResponseSchema(BaseModel):
    """An answer's body, exactly: no field but those named."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_without_null_defaults)


Query = Annotated[str, Field(pattern=r"\S", description="Not blank.")]
Texts = Annotated[list[str], Field(min_length=1, description="Strings.")]
Model = Annotated[
    Annotated[str, Field(min_length=1)] | None,
    Field(description="A name or alias of `GET /v1/models`. Default: the first one there."),
]
TopN = Annotated[Annotated[int, Field(ge=1)] | None, Field(description="So many of the best. Default: all.")]
Priority = Annotated[
    Annotated[int, Field(ge=0, le=MAX_PRIORITY)] | None, Field(description="0 is the most urgent, and the default.")
]
RankFieldNames = Annotated[
    list[Annotated[str, Field(min_length=1)]] | None,
    Field(description="The fields of an object that are scored, in this order. Default: text."),
]
Instruction = Annotated[
    Annotated[str, Field(min_length=1)] | None, Field(description="For models with a score template; 400 for others.")
]
Ignored = Annotated[Any, Field(description="Ignored: what is too long is cut at its end.")]
AtLeastOne = Annotated[int, Field(ge=1)] | None
Index = Annotated[int, Field(ge=0, description="The document's place in the request.")]
Score = Annotated[float, Field(description="0..1 for a cross-encoder, the cosine for a bi-encoder.")]
RawScore = Annotated[float, Field(description="The model's own: a cross-encoder's logit, a bi-encoder's cosine.")]
Tokens = Annotated[int, Field(ge=0, description="Tokens that went into the model.")]


class TextDocument(RequestSchema):
    """A document as an object."""

    text: str


class TextEcho(ResponseSchema):
    """A document as it comes back."""

    text: str


class ObjectEcho(BaseModel):
    """A document as it comes back: the object that was sent, or `text` where a string was."""

    model_config = ConfigDict(extra="allow")


class Row(ResponseSchema):
    """A document's place: rows are sorted, best first."""

    index: Index
    relevance_score: Score


class RowWithText(Row):
    """A document's place, and the document when it is wanted."""

    document: TextEcho | Absent = None


class PromptUsage(ResponseSchema):
    """What the request cost."""

    prompt_tokens: Tokens
    total_tokens: Tokens


class TotalUsage(ResponseSchema):
    """What the request cost."""

    total_tokens: Tokens


class DetailError(ResponseSchema):
    """What went wrong."""

    detail: str
