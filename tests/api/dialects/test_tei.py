import pytest

from api.dialects.tei import TeiDialect, describe_model
from shared.contracts import Document, Truncation
from shared.errors import (
    InternalError,
    InvalidRequest,
    ModelUnavailable,
    Overloaded,
    RateLimited,
    RerankqError,
    ScoringFailed,
    StoreUnavailable,
    TextTooLong,
    TooManyDocuments,
    Unauthorized,
)
from shared.models import ModelSpec
from tests.api.dialects.support import ROWS, parse_error
from tests.api.support import make_result

TEI = TeiDialect()
BODY = {"query": "q", "texts": ["one", ""]}


def test_texts_become_documents() -> None:
    parsed = TEI.parse(BODY)
    assert parsed.documents == [Document(text="one"), Document(text="")]
    assert (parsed.return_documents, parsed.raw_scores, parsed.top_n) == (False, False, None)
    parsed = TEI.parse(BODY | {"return_text": True, "raw_scores": True})
    assert (parsed.return_documents, parsed.raw_scores) == (True, True)


@pytest.mark.parametrize(
    ("truncate", "direction", "truncation"),
    [
        (None, None, Truncation.END),
        (True, "Right", Truncation.END),
        (True, "Left", Truncation.START),
        (None, "left", Truncation.START),
        (False, None, Truncation.NONE),
        (False, "Right", Truncation.NONE),
    ],
)
def test_truncate_and_its_direction_decide_what_is_read(
    truncate: object, direction: object, truncation: Truncation
) -> None:
    assert TEI.parse(BODY | {"truncate": truncate, "truncation_direction": direction}).truncation is truncation


def test_a_text_that_is_too_long_is_413_with_teis_message() -> None:
    error = TextTooLong("documents[0]: too long", param="documents[0]", tokens=600, limit=512)
    assert TEI.status_of(error) == 413
    message = "`inputs` must have less than 512 tokens. Given: 600"
    assert TEI.render_error(error) == {"error": message, "error_type": "Validation"}


@pytest.mark.parametrize("text", [{"text": "t"}, None, 3])
def test_text_other_than_a_string_is_rejected(text: object) -> None:
    assert parse_error(TEI, BODY | {"texts": ["one", text]}) == ("texts[1] must be a string", "texts[1]")


def test_full_response_is_a_list() -> None:
    assert TEI.render(make_result(*ROWS)) == [
        {"index": 1, "score": 0.9, "text": "b"},
        {"index": 0, "score": 0.0, "text": ""},
    ]
    assert TEI.render(make_result(*ROWS, return_documents=False)) == [
        {"index": 1, "score": 0.9},
        {"index": 0, "score": 0.0},
    ]


def test_missing_texts_are_400_and_other_unreadable_bodies_422() -> None:
    for body in ({"query": "q"}, {"query": "q", "texts": []}, {"query": "q", "texts": None}):
        with pytest.raises(InvalidRequest) as caught:
            TEI.parse(body)
        assert TEI.status_of(caught.value) == 400
        assert TEI.render_error(caught.value) == {"error": "`texts` cannot be empty", "error_type": "Empty"}
    with pytest.raises(InvalidRequest) as caught:
        TEI.parse({"texts": ["t"]})
    assert TEI.status_of(caught.value) == 422
    assert TEI.render_error(caught.value) == {"error": "query is required for rerank", "error_type": "Tokenizer"}


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (TooManyDocuments("x"), 413, "Validation"),
        (ScoringFailed("x"), 424, "Backend"),
        (Overloaded("x"), 503, "Overloaded"),
        (RateLimited("x"), 429, "Overloaded"),
        (ModelUnavailable("x"), 503, "Unhealthy"),
        (StoreUnavailable("x"), 503, "Unhealthy"),
        (InternalError("x"), 500, "Backend"),
        (Unauthorized("x"), 401, "Validation"),
    ],
)
def test_errors_have_teis_type_and_status(error: RerankqError, status: int, kind: str) -> None:
    assert TEI.status_of(error) == status
    assert TEI.render_error(error) == {"error": "x", "error_type": kind}


def test_info_describes_the_model_as_a_reranker() -> None:
    spec = ModelSpec(name="org/m", source="/data/secret", engine_args={"max_model_len": 8192, "dtype": "float16"})
    info = describe_model(spec, max_documents=100, max_waiting=50, shard_tokens=1000, version="1.2.3")
    assert list(info["model_type"]) == ["reranker"]
    assert (info["model_id"], info["max_input_length"], info["model_dtype"]) == ("org/m", 8192, "float16")
    assert (info["max_client_batch_size"], info["max_concurrent_requests"]) == (100, 50)
    assert (info["auto_truncate"], info["version"]) == (True, "1.2.3")
    defaults = describe_model(ModelSpec(name="m"), max_documents=1, max_waiting=1, shard_tokens=1, version="1")
    assert (defaults["max_input_length"], defaults["model_dtype"]) == (512, "auto")


def test_error_names_the_field_as_in_the_body() -> None:
    assert parse_error(TEI, BODY | {"return_text": "perhaps"})[1] == "return_text"
