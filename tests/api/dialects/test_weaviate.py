from api.dialects.weaviate import WeaviateDialect
from shared.errors import InvalidRequest
from tests.api.dialects.support import BODY, ROWS, parse_error
from tests.api.support import make_result

WEAVIATE = WeaviateDialect()


def test_top_n_is_ignored() -> None:
    assert WEAVIATE.parse(BODY | {"property": "", "top_n": 1, "top_k": 1}).top_n is None


def test_scores_are_in_the_order_of_the_request() -> None:
    assert WEAVIATE.render(make_result(*ROWS)) == {
        "scores": [{"document": "", "score": 0.0}, {"document": "b", "score": 0.9}]
    }


def test_document_other_than_a_string_is_rejected() -> None:
    assert parse_error(WEAVIATE, BODY | {"documents": [{"text": "t"}]})[1] == "documents[0]"


def test_error_is_a_string() -> None:
    error = InvalidRequest("query is required for rerank", param="query")
    assert WEAVIATE.render_error(error) == {"error": "query is required for rerank"}
    assert WEAVIATE.status_of(error) == 400
