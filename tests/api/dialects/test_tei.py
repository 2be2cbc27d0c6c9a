import pytest

from api.dialects.tei import TeiDialect, describe_model
from shared.contracts import Document
from shared.errors import (
    InternalError,
    InvalidRequest,
    ModelUnavailable,
    Overloaded,
    RateLimited,
    RerankqError,
    ScoringFailed,
    StoreUnavailable,
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
    parsed = TEI.parse(
        BODY | {"return_text": True, "raw_scores": True, "truncate": False, "truncation_direction": "Left"}
    )
    assert (parsed.return_documents, parsed.raw_scores) == (True, True)


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


def test_missing_texts_are_400_and_other_invalid_requests_422() -> None:
    for body in ({"query": "q"}, {"query": "q", "texts": []}, {"query": "q", "texts": None}):
        with pytest.raises(InvalidRequest) as caught:
            TEI.parse(body)
        assert TEI.status_of(caught.value) == 400
        assert TEI.render_error(caught.value) == {"error": "`texts` cannot be empty", "error_type": "Empty"}
    with pytest.raises(InvalidRequest) as caught:
        TEI.parse({"texts": ["t"]})
    assert TEI.status_of(caught.value) == 422
    assert TEI.render_error(caught.value) == {"error": "query is required for rerank", "error_type": "Validation"}


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
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
    info = describe_model(spec, max_documents=100, shard_tokens=1000, version="1.2.3")
    assert list(info["model_type"]) == ["reranker"]
    assert (info["model_id"], info["max_input_length"], info["model_dtype"]) == ("org/m", 8192, "float16")
    assert (info["max_client_batch_size"], info["version"]) == (100, "1.2.3")
    defaults = describe_model(ModelSpec(name="m"), max_documents=1, shard_tokens=1, version="1")
    assert (defaults["max_input_length"], defaults["model_dtype"]) == (512, "auto")


def test_error_names_the_field_as_in_the_body() -> None:
    assert parse_error(TEI, BODY | {"return_text": "perhaps"})[1] == "return_text"
