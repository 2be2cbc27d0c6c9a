"""Replicate's predictions: pairs in `input_list`, as rerankers on Replicate read them, and the errors below /replicate.

The routes are in api/routes/predictions.py. An input without `input_list` is a body of the superset.
"""

import json
from http import HTTPStatus
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, Field, RootModel

from api.dialects import examples
from api.dialects.base import Dialect
from api.dialects.request_fields import JsonObject
from api.dialects.schemas import Omitted, RequestSchema, ResponseSchema, Score
from api.dialects.vllm_score import VllmScoreDialect
from api.http.error_responses import status_of
from shared.contracts import RerankRequest, RerankResult
from shared.errors import InvalidRequest, RerankqError, Unauthorized

PAIRS = "input_list"
VERSION = "version"
_SIDES = ("text_1", "text_2")
_SCORES = VllmScoreDialect()


class ReplicatePairs(RequestSchema):
    """Pairs of a query and a document."""

    input_list: Annotated[
        str | list[list[str]], Field(description="`[[query, document], ...]`, as JSON in a string or as a list.")
    ]


class ReplicateScores(RootModel[list[Score]]):
    """The score of each pair, in the order of the input."""


class ReplicateInvalidField(ResponseSchema):
    """What is wrong with a field."""

    type: str
    field: str
    description: str


class ReplicateError(ResponseSchema):
    """An error as in RFC 7807. `type` is stable."""

    type: str
    title: str
    status: int
    detail: str
    invalid_fields: list[ReplicateInvalidField] | Omitted = None


class ReplicateDialect(Dialect):
    """The dialect of inputs with pairs."""

    name = "replicate"
    paths: ClassVar[tuple[str, ...]] = ()
    """The path of a prediction does not select its format."""
    request_model = ReplicatePairs
    answer_models: ClassVar[tuple[type[BaseModel], ...]] = (ReplicateScores,)
    error_model = ReplicateError
    examples: ClassVar[dict[str, JsonObject]] = {
        "pairs": {PAIRS: json.dumps([[examples.QUERY, text] for text in examples.DOCUMENTS])},
    }

    def parse(self, body: JsonObject) -> RerankRequest:
        pairs = _read_pairs(body.get(PAIRS))
        sides = dict(zip(_SIDES, map(list, zip(*pairs, strict=True)), strict=True))
        try:
            return _SCORES.parse({name: value for name, value in body.items() if name != PAIRS} | sides)
        except InvalidRequest as error:
            if (error.param or "").startswith(_SIDES):
                raise InvalidRequest(f"{PAIRS}: {error.message}", param=PAIRS) from None
            raise

    def render(self, result: RerankResult) -> list[float]:
        return [row.score for row in sorted(result.rows, key=lambda row: row.index)]

    def render_error(self, error: RerankqError, request_id: str = "") -> dict[str, Any]:
        status = self.status_of(error)
        body = {"type": error.code, "title": _title(error, status), "status": status, "detail": error.message}
        if not isinstance(error, InvalidRequest) or error.param is None:
            return body
        return body | {"invalid_fields": [{"type": error.code, "field": error.param, "description": error.message}]}

    def status_of(self, error: RerankqError) -> int:
        return HTTPStatus.UNPROCESSABLE_ENTITY.value if isinstance(error, InvalidRequest) else status_of(error)


def _title(error: RerankqError, status: int) -> str:
    if isinstance(error, InvalidRequest):
        return "Invalid version or not permitted" if error.param == VERSION else "Input validation failed"
    return "Unauthenticated" if isinstance(error, Unauthorized) else HTTPStatus(status).phrase


def _read_pairs(given: Any) -> list[list[str]]:
    """The pairs of a query and a document. Raises InvalidRequest."""
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            raise InvalidRequest(f"{PAIRS} must be JSON: [[query, document], ...]", param=PAIRS) from None
    if not isinstance(given, list) or not given:
        raise InvalidRequest(f"{PAIRS} must be a list with at least one pair of texts", param=PAIRS)
    for position, pair in enumerate(given):
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise InvalidRequest(f"{PAIRS}[{position}] must be a pair of texts: [query, document]", param=PAIRS)
    return given
