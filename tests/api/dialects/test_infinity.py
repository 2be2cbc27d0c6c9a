import pytest

from api.dialects.infinity import InfinityDialect, NebulDialect
from shared.contracts import Document, RankedRow
from shared.errors import InvalidRequest, ModelNotFound, Unauthorized
from tests.api.support import make_result
from tests.shared.support import MODEL

INFINITY = InfinityDialect()
NEBUL = NebulDialect()
ROWS = (
    RankedRow(index=1, score=0.9, document=Document(text="b"), truncated=True),
    RankedRow(index=0, score=0.0, document=Document(text=""), error="the document is empty"),
)


@pytest.mark.parametrize("document", [{"text": "t"}, {}, None, 3, ["t"]])
def test_document_other_than_a_string_is_rejected(document: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        INFINITY.parse({"query": "q", "documents": ["one", document]})
    assert (caught.value.message, caught.value.param) == ("documents[1] must be a string", "documents[1]")


@pytest.mark.parametrize(
    ("body", "returned"),
    [({}, False), ({"return_documents": None}, False), ({"return_documents": True}, True)],
)
def test_documents_are_returned_only_on_request(body: dict[str, object], returned: bool) -> None:
    assert INFINITY.parse({"query": "q", "documents": ["t"]} | body).return_documents is returned


def test_full_response() -> None:
    assert INFINITY.render(make_result(*ROWS)) == {
        "object": "rerank",
        "results": [
            {"relevance_score": 0.9, "index": 1, "document": "b"},
            {"relevance_score": 0.0, "index": 0, "document": ""},
        ],
        "model": MODEL,
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
        "id": "job-1",
        "created": 1_700_000_000,
    }


def test_rows_without_documents_omit_the_field() -> None:
    rows = INFINITY.render(make_result(*ROWS, return_documents=False))["results"]
    assert rows == [{"relevance_score": 0.9, "index": 1}, {"relevance_score": 0.0, "index": 0}]


def test_validation_errors_have_fastapis_format() -> None:
    error = InvalidRequest("query is required for rerank", param="query")
    assert INFINITY.status_of(error) == 422
    assert INFINITY.render_error(error) == {
        "detail": [{"type": "value_error", "loc": ["body", "query"], "msg": "query is required for rerank"}]
    }


def test_error_without_a_field_has_the_location_body() -> None:
    body = INFINITY.render_error(InvalidRequest("the body is not valid JSON"))
    assert body["detail"][0]["loc"] == ["body"]


def test_unknown_model_is_400() -> None:
    error = ModelNotFound("model 'x' is not served here", param="model")
    assert INFINITY.status_of(error) == 400
    assert INFINITY.render_error(error) == {
        "error": {"message": "model 'x' is not served here", "type": None, "param": None, "code": 400}
    }


def test_authentication_errors_have_a_detail() -> None:
    assert INFINITY.render_error(Unauthorized("a key is required")) == {"detail": "a key is required"}


class TestNebul:
    def test_requests_and_responses_have_infinitys_format(self) -> None:
        assert NEBUL.render(make_result(*ROWS)) == INFINITY.render(make_result(*ROWS))
        assert NEBUL.parse({"query": "q", "documents": ["t"]}) == INFINITY.parse({"query": "q", "documents": ["t"]})

    def test_errors_have_the_roots_format(self) -> None:
        error = InvalidRequest("query is required for rerank", param="query")
        body = NEBUL.render_error(error)
        assert body["detail"] == body["message"] == body["error"]["message"] == "query is required for rerank"
        assert NEBUL.status_of(error) == 400
