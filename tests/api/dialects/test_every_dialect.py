"""Properties of every dialect."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, RootModel, ValidationError
from pydantic_core import from_json, to_json

from api.dialects import superset
from api.dialects.base import Dialect
from api.dialects.registry import FAMILIES
from api.dialects.request_fields import JsonObject
from api.dialects.root import RootDialect
from api.dialects.vllm import VllmRerankDialect
from api.openapi.examples import ERRORS
from shared.contracts import Document, RankedRow, RerankRequest, RerankResult
from shared.errors import InvalidRequest, Overloaded, RateLimited, RerankqError, TextTooLong, WaitTimedOut
from shared.ledger import encoding
from tests.api.dialects.support import bodies
from tests.api.support import make_result
from tests.shared.support import properties
from tests.shared.test_errors import LEAVES

DIALECTS = [dialect for family in FAMILIES for dialect in family.dialects]
every_dialect = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)

texts = st.text(max_size=8)
rows = st.lists(
    st.builds(
        RankedRow,
        index=st.integers(0, 10**4),
        score=st.floats(-20, 20),
        document=st.builds(
            Document,
            text=texts,
            fields=st.none() | st.dictionaries(texts, texts | st.integers(-9, 9), max_size=2),
            id=st.none() | texts | st.integers(0, 9),
            meta=st.none() | texts | st.dictionaries(texts, st.none() | texts, max_size=2),
        ),
        truncated=st.booleans(),
        window=st.none() | st.tuples(st.integers(0, 9), st.integers(0, 9)),
        error=st.none() | texts,
    ),
    max_size=4,
)
results = st.builds(
    RerankResult,
    id=texts,
    model=texts,
    created=st.integers(0, 10**10),
    return_documents=st.booleans(),
    rows=rows,
    prompt_tokens=st.integers(0, 10**9),
    cached_pairs=st.integers(0, 3),
    queue_ms=st.floats(0, 1e6),
    inference_ms=st.floats(0, 1e6),
)


def make_error(kind: type[RerankqError]) -> RerankqError:
    return WaitTimedOut("x", job_id="job-1", retry_after=1) if kind is WaitTimedOut else kind("one sentence", param="p")


def assert_matches(model: type[BaseModel], body: Any) -> None:
    """Raises ValidationError or AssertionError unless the body, sent as JSON, has exactly the fields of the model."""
    wire = from_json(to_json(body))
    parsed = model.model_validate(wire, strict=True)
    assert from_json(to_json(parsed.model_dump(exclude_unset=True, by_alias=True))) == wire


@every_dialect
@properties
@given(body=bodies)
def test_any_body_is_parsed_or_rejected_with_the_field(dialect: Dialect, body: JsonObject) -> None:
    outcome = parse_or_error(dialect.dialect_for_body(body), body)
    if isinstance(outcome, InvalidRequest):
        assert outcome.param is not None
        assert "\n" not in outcome.message
    else:
        assert RerankRequest.model_validate(outcome.model_dump()) == outcome
        assert outcome.documents


def parse_or_error(dialect: Dialect, body: JsonObject) -> RerankRequest | InvalidRequest:
    try:
        return dialect.parse(body)
    except InvalidRequest as error:
        return error


@every_dialect
@properties
@given(result=results)
def test_every_response_has_exactly_the_documented_shape(dialect: Dialect, result: RerankResult) -> None:
    assert_matches(dialect.answer_models[0], dialect.render(result))


@every_dialect
@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.code)
def test_every_error_has_exactly_the_documented_shape(dialect: Dialect, kind: type[RerankqError]) -> None:
    error = make_error(kind)
    assert_matches(dialect.error_model, dialect.render_error(error, "request-1"))
    assert 400 <= dialect.status_of(error) < 600


@every_dialect
def test_every_error_includes_its_message_or_its_numbers_in_the_systems_words(dialect: Dialect) -> None:
    for error in ERRORS:
        rendered = to_json(dialect.render_error(error)).decode()
        numbers = [error.tokens, error.limit] if isinstance(error, TextTooLong) else []
        assert error.message in rendered or (numbers and all(f"{number}" in rendered for number in numbers))


@every_dialect
def test_overloaded_is_503(dialect: Dialect) -> None:
    assert dialect.status_of(Overloaded("come back later", retry_after=3)) == 503


@every_dialect
def test_rate_limited_is_429(dialect: Dialect) -> None:
    assert dialect.status_of(RateLimited("come back later", retry_after=3)) == 429


@every_dialect
def test_documents_are_never_null(dialect: Dialect) -> None:
    row = RankedRow(index=0, score=0.5, document=Document(text="t"))
    for wanted in (True, False):
        assert b'"document":null' not in to_json(dialect.render(make_result(row, return_documents=wanted)))


@every_dialect
def test_stored_request_renders_byte_for_byte_the_same(dialect: Dialect) -> None:
    for body in dialect.examples.values():
        try:
            request = dialect.dialect_for_body(body).parse(body)
        except InvalidRequest:
            continue
        parts = [encoding.encode_documents(request.documents[:1]), encoding.encode_documents(request.documents[1:])]
        stored = encoding.decode_request(encoding.encode_request(request), parts)
        assert render_example(dialect, stored) == render_example(dialect, request)


def render_example(dialect: Dialect, request: RerankRequest) -> bytes:
    ranked = [RankedRow(index=index, score=0.5, document=document) for index, document in enumerate(request.documents)]
    return to_json(dialect.render(make_result(*ranked, return_documents=request.return_documents)))


@every_dialect
def test_null_is_the_same_as_a_missing_field(dialect: Dialect) -> None:
    for body in dialect.examples.values():
        nulls = dict.fromkeys(set(dialect.request_model.model_fields) - set(body))
        try:
            expected = dialect.dialect_for_body(body).parse(body)
        except InvalidRequest:
            continue
        nulled = {**body, **nulls}
        assert dialect.dialect_for_body(nulled).parse(nulled) == expected


@every_dialect
def test_parsed_examples_match_the_documented_request(dialect: Dialect) -> None:
    for body in dialect.examples.values():
        try:
            dialect.dialect_for_body(body).parse(body)
        except InvalidRequest:
            continue
        dialect.request_model.model_validate(body)


def test_names_and_model_names_are_unique() -> None:
    names = [dialect.name for dialect in DIALECTS]
    assert len(set(names)) == len(names)
    models = {model for dialect in DIALECTS for model in (dialect.request_model, *dialect.answer_models)}
    assert len({model.__name__ for model in models}) == len(models)


def test_assert_matches_rejects_extra_missing_and_null_fields() -> None:
    """The tests above rely on this."""
    body = RootDialect().render(make_result())
    for wrong in (body | {"more": 1}, {**body, "id": None}, {k: v for k, v in body.items() if k != "id"}):
        with pytest.raises(ValidationError):
            assert_matches(superset.SupersetAnswer, wrong)
    vllm = VllmRerankDialect()
    assert not issubclass(vllm.answer_models[0], RootModel)
