from api.dialects.jina import JinaDialect
from shared.contracts import Document
from shared.errors import InvalidRequest, ModelNotFound, Unauthorized
from tests.api.dialects.support import BODY, ROWS
from tests.api.support import make_result
from tests.shared.support import MODEL

JINA = JinaDialect()


def test_documents_are_strings_or_objects_with_a_text() -> None:
    assert JINA.parse(BODY | {"documents": ["one", {"text": "two"}]}).documents == [
        Document(text="one"),
        Document(text="two"),
    ]


def test_documents_are_returned_by_default() -> None:
    assert JINA.parse(BODY).return_documents
    assert not JINA.parse(BODY | {"return_documents": False}).return_documents


def test_full_response() -> None:
    assert JINA.render(make_result(*ROWS)) == {
        "model": MODEL,
        "usage": {"total_tokens": 7},
        "results": [
            {"index": 1, "relevance_score": 0.9, "document": {"text": "b"}},
            {"index": 0, "relevance_score": 0.0, "document": {"text": ""}},
        ],
    }


def test_rows_without_documents_omit_the_field() -> None:
    rows = JINA.render(make_result(*ROWS, return_documents=False))["results"]
    assert rows == [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.0}]


def test_errors_have_a_detail_and_validation_is_422() -> None:
    error = InvalidRequest("query is required for rerank", param="query")
    assert JINA.render_error(error) == {"detail": "query is required for rerank"}
    assert JINA.status_of(error) == 422
    assert (JINA.status_of(Unauthorized("x")), JINA.status_of(ModelNotFound("x"))) == (401, 404)
