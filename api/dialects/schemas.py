"""Schemas of fields and bodies that several dialects share, for the OpenAPI document. Not used for validation."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from shared.contracts import MAX_PRIORITY
from shared.webhooks import WebhookEvent

Omitted = SkipJsonSchema[None]
"""`X | Omitted = None`: the field is an X or missing, never null."""


def _without_null_defaults(schema: dict[str, Any]) -> None:
    for field in schema.get("properties", {}).values():
        if field.get("default", "") is None:
            del field["default"]


class RequestSchema(BaseModel):
    """A request's body. Other fields are ignored."""

    model_config = ConfigDict(json_schema_extra=_without_null_defaults)


class ResponseSchema(BaseModel):
    """An answer's body, with exactly these fields."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_without_null_defaults)


Query = Annotated[str, Field(pattern=r"\S", description="Not blank.")]
Texts = Annotated[list[str], Field(min_length=1, description="Strings.")]
Model = Annotated[
    Annotated[str, Field(min_length=1)] | None,
    Field(description="A name or alias from `GET /v1/models`. Default: the first one."),
]
TopN = Annotated[
    Annotated[int, Field(ge=1)] | None, Field(description="Return only this many documents. Default: all.")
]
Priority = Annotated[
    Annotated[int, Field(ge=0, le=MAX_PRIORITY)] | None, Field(description="0 is the most urgent and the default.")
]
RankFieldNames = Annotated[
    list[Annotated[str, Field(min_length=1)]] | None,
    Field(description="The fields of an object that are scored, in this order. Default: text."),
]
Instruction = Annotated[
    Annotated[str, Field(min_length=1)] | None, Field(description="For models with a score template; 400 for others.")
]
Truncate = Annotated[
    bool | Literal["END", "START", "NONE"] | None,
    Field(
        description="A text that is too long: END (or true) cuts off its end, START its beginning; NONE (or false) is "
        "an error. Default: END."
    ),
]
MayTruncate = Annotated[bool | None, Field(description="False: a text that is too long is an error. Default: true.")]
TruncationSide = Annotated[
    Literal["left", "right"] | None,
    Field(description="The side of a text that is cut off: left keeps its end. Default: right."),
]
TruncationDirection = Annotated[
    Literal["Left", "Right"] | None,
    Field(description="The side of a text that is cut off: Left keeps its end. Default: Right."),
]


class WebhookFields(RequestSchema):
    """Where the end of one request's job is reported."""

    url: str
    events: list[WebhookEvent] | None = Field(None, description="Default: all.")
    secret: str | None = Field(
        None, description="`whsec_...`, which signs the delivery. Default: see `/v1/webhooks/default/secret`."
    )


Webhook = Annotated[
    str | WebhookFields | None, Field(description="A URL, or an object, to which the end of the job is reported.")
]
PromptLimit = Annotated[
    Literal[-1] | Annotated[int, Field(ge=1)] | None,
    Field(description="The most tokens of query, document and special tokens together. -1: the model's limit."),
]
AtLeastOne = Annotated[int, Field(ge=1)] | None
Index = Annotated[int, Field(ge=0, description="The document's position in the request.")]
Score = Annotated[float, Field(description="0..1 for a cross-encoder, the cosine for a bi-encoder.")]
RawScore = Annotated[float, Field(description="The model's own score: a cross-encoder's logit, a bi-encoder's cosine.")]
Tokens = Annotated[int, Field(ge=0, description="Tokens that went into the model.")]


class Parameters(RequestSchema):
    """The options of the model."""

    truncate: Truncate = None


class TextDocument(RequestSchema):
    """A document as an object."""

    text: str


class TextEcho(ResponseSchema):
    """A returned document."""

    text: str


class ObjectEcho(BaseModel):
    """A returned document: the object that was sent, or `text` for a string."""

    model_config = ConfigDict(extra="allow")


class Row(ResponseSchema):
    """A ranked document; rows are sorted best first."""

    index: Index
    relevance_score: Score


class RowWithText(Row):
    """A ranked document, with its content when requested."""

    document: TextEcho | Omitted = None


class PromptUsage(ResponseSchema):
    """The tokens that the request used."""

    prompt_tokens: Tokens
    total_tokens: Tokens


class TotalUsage(ResponseSchema):
    """The tokens that the request used."""

    total_tokens: Tokens


class DetailError(ResponseSchema):
    """An error."""

    detail: str
