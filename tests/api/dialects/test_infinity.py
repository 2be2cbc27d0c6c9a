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
def test_documents_are_strings_only(document: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        INFINITY.parse({"query": "q", "documents": ["one", document]})
    assert (caught.value.message, caught.value.param) == ("documents[1] must be a string", "documents[1]")


@pytest.mark.parametrize(
    ("body", "returned"),
    [({}, False), ({"return_documents": None}, False), ({"return_documents": True}, True)],
)
def test_documents_are_returned_only_when_the_caller_says_so(body: dict[str, object], returned: bool) -> None:
    assert INFINITY.parse({"query": "q", "documents": ["t"]} | body).return_documents is returned


def test_the_whole_answer() -> None:
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


def test_a_document_that_is_not_wanted_is_absent_not_null() -> None:
    rows = INFINITY.render(make_result(*ROWS, return_documents=False))["results"]
    assert rows == [{"relevance_score": 0.9, "index": 1}, {"relevance_score": 0.0, "index": 0}]


def test_its_validation_reads_like_fastapis() -> None:
    error = InvalidRequest("query is required for rerank", param="query")
    assert INFINITY.status_of(error) == 422
    assert INFINITY.render_error(error) == {
        "detail": [{"type": "value_error", "loc": ["body", "query"], "msg": "query is required for rerank"}]
    }


def test_a_body_that_is_no_json_has_no_place_in_it() -> None:
    body = INFINITY.render_error(InvalidRequest("the body is not valid JSON"))
    assert body["detail"][0]["loc"] == ["body"]


def test_an_unknown_model_is_a_wrong_request_to_it() -> None:
    error = ModelNotFound("model 'x' is not served here", param="model")
    assert INFINITY.status_of(error) == 400
    assert INFINITY.render_error(error) == {
        "error": {"message": "model 'x' is not served here", "type": None, "param": None, "code": 400}
    }


def test_what_the_framework_refuses_is_a_detail() -> None:
    assert INFINITY.render_error(Unauthorized("a key is required")) == {"detail": "a key is required"}


class TestNebul:
    def test_it_speaks_infinitys_schema(self) -> None:
        assert NEBUL.render(make_result(*ROWS)) == INFINITY.render(make_result(*ROWS))
        assert NEBUL.parse({"query": "q", "documents": ["t"]}) == INFINITY.parse({"query": "q", "documents": ["t"]})

    def test_its_errors_read_like_the_roots(self) -> None:
        error = InvalidRequest("query is required for rerank", param="query")
        body = NEBUL.render_error(error)
        assert body["detail"] == body["message"] == body["error"]["message"] == "query is required for rerank"
        assert NEBUL.status_of(error) == 400
