import pytest

from api.dialects.infinity import InfinityDialect
from shared.contracts import Document, RankedRow
from shared.errors import InvalidRequest
from tests.api.support import make_result
from tests.shared.support import MODEL

INFINITY = InfinityDialect("infinity")
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


def test_an_error_reads_like_everywhere_else() -> None:
    body = INFINITY.render_error(InvalidRequest("query is required for rerank", param="query"))
    assert body["detail"] == body["message"] == body["error"]["message"] == "query is required for rerank"


def test_it_is_spoken_under_the_name_it_is_given() -> None:
    assert InfinityDialect("nebul").name == "nebul"
