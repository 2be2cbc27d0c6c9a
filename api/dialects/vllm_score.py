"""vLLM's score API: pairs of texts, one score a pair, in the order of the request.

The two sides have four pairs of names. One text against one or many is a query and its documents. Many against as many
are pairs, each with a query of its own: still one request and one job, whose shards have one query each.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.dialects import examples
from api.dialects.request_fields import JsonObject, read_request
from api.dialects.schemas import Index, RequestSchema, ResponseSchema, Score, Tokens
from api.dialects.vllm import TextContent, VllmDialect, VllmFields, read_fields, read_texts
from shared.contracts import Document, RerankRequest, RerankResult
from shared.errors import InvalidRequest

SIDES = (("queries", "documents"), ("queries", "items"), ("data_1", "data_2"), ("text_1", "text_2"))
_Side = Annotated[
    Annotated[list[str | TextContent], Field(min_length=1)] | TextContent | str,
    Field(description="One text, or a list of them."),
]


def _one_pair_of_sides(schema: dict[str, Any]) -> None:
    schema["anyOf"] = [{"required": list(sides)} for sides in SIDES]
    for field in schema["properties"].values():
        field.pop("default", None)


class VllmScoreRequest(VllmFields):
    """Two sides of texts: 1 and 1, 1 and N, or N and N of them. Only one name may be used for each side."""

    model_config = ConfigDict(json_schema_extra=_one_pair_of_sides)

    queries: _Side | None = None
    documents: _Side | None = None
    items: _Side | None = None
    data_1: _Side | None = None
    data_2: _Side | None = None
    text_1: _Side | None = None
    text_2: _Side | None = None


class VllmScore(ResponseSchema):
    """A pair's score; `index` is its position in the request."""

    index: Index
    object: Literal["score"]
    score: Score


class VllmScoreUsage(ResponseSchema):
    """The tokens that the request used."""

    prompt_tokens: Tokens
    total_tokens: Tokens
    completion_tokens: int
    prompt_tokens_details: None


class VllmScoreAnswer(ResponseSchema):
    """The scores, in the order of the request."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[VllmScore]
    usage: VllmScoreUsage


class VllmScoreDialect(VllmDialect):
    """The dialect under /vllm, and at the root for bodies with two sides."""

    name = "vllm-score"
    paths = ("/score", "/v1/score")
    summary = "Score pairs of texts, in the order of the request"
    request_model: ClassVar[type[RequestSchema]] = VllmScoreRequest
    answer_models: ClassVar[tuple[type[BaseModel], ...]] = (VllmScoreAnswer,)
    examples: ClassVar[dict[str, JsonObject]] = {
        "one-to-many": {"queries": examples.QUERY, "documents": examples.DOCUMENTS},
        "one-to-one": {"text_1": examples.QUERY, "text_2": examples.DOCUMENTS[1]},
        "many-to-many": {"data_1": [examples.QUERY, "it is a bear"], "data_2": examples.DOCUMENTS[1:]},
        "three-to-two": {"data_1": [examples.QUERY] * 3, "data_2": examples.DOCUMENTS[1:]},
    }

    def parse(self, body: JsonObject) -> RerankRequest:
        body = read_fields(body)
        first, second = _sides(body)
        queries, texts = read_texts(body[first], first), read_texts(body[second], second)
        for name, side in ((first, queries), (second, texts)):
            if not side:
                raise InvalidRequest(f"{name} must have at least one text", param=name)
        if len(queries) not in (1, len(texts)):
            raise InvalidRequest(
                f"{first} and {second} must be 1 and 1, 1 and N, or N and N texts, got {len(queries)} and {len(texts)}",
                param=first,
            )
        body["return_documents"] = False
        body.pop("top_n", None)
        body.pop("top_k", None)
        if len(set(queries)) == 1:
            return read_request(body, [Document.plain(text) for text in texts], queries[0])
        pairs = zip(queries, texts, strict=True)
        return read_request(
            body, [Document.model_construct(text=text, query=query) for query, text in pairs], queries[0]
        )

    def render(self, result: RerankResult) -> dict[str, Any]:
        tokens = result.prompt_tokens
        in_order = sorted(result.rows, key=lambda row: row.index)
        return {
            "id": result.id,
            "object": "list",
            "created": result.created,
            "model": result.model,
            "data": [{"index": row.index, "object": "score", "score": row.score} for row in in_order],
            "usage": {
                "prompt_tokens": tokens,
                "total_tokens": tokens,
                "completion_tokens": 0,
                "prompt_tokens_details": None,
            },
        }


def _sides(body: JsonObject) -> tuple[str, str]:
    """The names of the two sides that the body has. Raises InvalidRequest."""
    for sides in SIDES:
        if all(side in body for side in sides):
            return sides
    known = ", ".join(f"{first} and {second}" for first, second in SIDES)
    raise InvalidRequest(f"two sides are required: one of {known}", param="data_1")
