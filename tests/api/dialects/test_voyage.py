import pytest

from api.dialects.voyage import VoyageDialect
from shared.errors import InvalidRequest
from tests.api.dialects.support import BODY, ROWS, parse_error
from tests.api.support import make_result
from tests.shared.support import MODEL

VOYAGE = VoyageDialect()


@pytest.mark.parametrize(("top_k", "expected"), [(None, None), (1, 1), ("2", 2)])
def test_top_k_becomes_top_n(top_k: object, expected: int | None) -> None:
    assert VOYAGE.parse(BODY | {"top_k": top_k}).top_n == expected


def test_top_k_below_one_is_rejected() -> None:
    assert parse_error(VOYAGE, BODY | {"top_k": 0}) == ("top_k must be at least 1", "top_k")


def test_full_response_has_its_rows_in_data() -> None:
    assert VOYAGE.render(make_result(*ROWS)) == {
        "object": "list",
        "data": [
            {"index": 1, "relevance_score": 0.9, "document": "b"},
            {"index": 0, "relevance_score": 0.0, "document": ""},
        ],
        "model": MODEL,
        "usage": {"total_tokens": 7},
    }
    assert not VOYAGE.parse(BODY).return_documents
    assert "document" not in VOYAGE.render(make_result(*ROWS, return_documents=False))["data"][0]


def test_errors_have_a_detail() -> None:
    error = InvalidRequest("query is required for rerank", param="query")
    assert VOYAGE.render_error(error) == {"detail": "query is required for rerank"}
    assert VOYAGE.status_of(error) == 400
