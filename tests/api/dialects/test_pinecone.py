import pytest

from api.dialects.pinecone import PineconeDialect
from shared.contracts import Document, RankedRow
from shared.errors import (
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    RateLimited,
    RerankqError,
    ScoringFailed,
    Unauthorized,
)
from tests.api.dialects.support import BODY
from tests.api.support import make_result
from tests.shared.support import MODEL

PINECONE = PineconeDialect()
PANDA = {"id": "vec1", "text": "A bear.", "title": "Giant panda"}


@pytest.mark.parametrize("rank_fields", [None, ["text"]])
def test_text_is_scored_and_the_whole_document_is_returned(rank_fields: object) -> None:
    (document,) = PINECONE.parse(BODY | {"documents": [PANDA], "rank_fields": rank_fields}).documents
    assert (document.text, document.fields) == ("A bear.", PANDA)


def test_rank_fields_select_other_fields() -> None:
    (document,) = PINECONE.parse(BODY | {"documents": [PANDA], "rank_fields": ["title"]}).documents
    assert (document.text, document.fields) == ("title: Giant panda\n", PANDA)


def test_full_response() -> None:
    row = RankedRow(index=0, score=0.9, document=Document(text="A bear.", fields=PANDA))
    assert PINECONE.parse(BODY).return_documents
    assert PINECONE.render(make_result(row)) == {
        "model": MODEL,
        "data": [{"index": 0, "score": 0.9, "document": PANDA}],
        "usage": {"rerank_units": 1},
    }
    assert PINECONE.render(make_result(row, return_documents=False))["data"] == [{"index": 0, "score": 0.9}]


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (InvalidRequest("x"), 400, "INVALID_ARGUMENT"),
        (Unauthorized("x"), 401, "UNAUTHENTICATED"),
        (ModelNotFound("x"), 404, "NOT_FOUND"),
        (Overloaded("x"), 503, "UNAVAILABLE"),
        (RateLimited("x"), 429, "RESOURCE_EXHAUSTED"),
        (ScoringFailed("x"), 500, "UNKNOWN"),
    ],
)
def test_errors_have_pinecones_format(error: RerankqError, status: int, code: str) -> None:
    assert PINECONE.render_error(error) == {"error": {"code": code, "message": "x"}, "status": status}
    assert PINECONE.status_of(error) == status
