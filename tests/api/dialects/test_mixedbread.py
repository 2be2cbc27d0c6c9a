from typing import Any

import pytest

from api.dialects.mixedbread import MixedbreadDialect
from shared.contracts import Document, RankedRow
from shared.errors import InvalidRequest
from tests.api.dialects.support import ROWS, parse_error
from tests.api.support import make_result
from tests.shared.support import MODEL

MIXEDBREAD = MixedbreadDialect()
BODY: dict[str, Any] = {"query": "q", "input": ["one", {"text": "two", "page": 3}]}


def test_input_becomes_documents_and_top_k_becomes_top_n() -> None:
    parsed = MIXEDBREAD.parse(BODY | {"top_k": 1, "rewrite_query": True})
    assert parsed.documents == [Document(text="one"), Document(text="two", fields={"text": "two", "page": 3})]
    assert (parsed.top_n, parsed.return_documents) == (1, False)
    assert MIXEDBREAD.parse(BODY | {"return_input": True}).return_documents


def test_rank_fields_select_the_scored_fields() -> None:
    parsed = MIXEDBREAD.parse({"query": "q", "input": [{"title": "t"}], "rank_fields": ["title"]})
    assert parsed.documents == [Document(text="title: t\n", fields={"title": "t"})]


@pytest.mark.parametrize(
    ("change", "message", "param"),
    [
        ({"input": None}, "input is required for rerank", "input"),
        ({"input": []}, "input is required for rerank", "input"),
        ({"input": "t"}, "input must be a list", "input"),
        ({"input": [{"x": 1}]}, "document text is required for rerank at index 0", "input[0].text"),
        (
            {"input": [{"y": 1}, {"x": 1}], "rank_fields": ["y"]},
            "input[1] has none of the rank_fields",
            "input[1]",
        ),
        ({"return_input": "perhaps"}, None, "return_input"),
        ({"top_k": 0}, "top_k must be at least 1", "top_k"),
    ],
)
def test_error_names_the_invalid_field(change: dict[str, Any], message: str | None, param: str) -> None:
    actual, field = parse_error(MIXEDBREAD, BODY | change)
    assert (actual if message else None, field) == (message, param)


def test_full_response() -> None:
    whole = RankedRow(index=2, score=0.5, document=Document(text="two", fields={"text": "two", "page": 3}))
    assert MIXEDBREAD.render(make_result(*ROWS, whole)) == {
        "usage": {"prompt_tokens": 7, "total_tokens": 7, "completion_tokens": 0},
        "model": MODEL,
        "data": [
            {"index": 1, "score": 0.9, "input": "b", "object": "rank_result"},
            {"index": 0, "score": 0.0, "input": "", "object": "rank_result"},
            {"index": 2, "score": 0.5, "input": {"text": "two", "page": 3}, "object": "rank_result"},
        ],
        "object": "list",
        "top_k": 3,
        "return_input": True,
    }
    bare = MIXEDBREAD.render(make_result(*ROWS, return_documents=False))
    assert bare["data"][0] == {"index": 1, "score": 0.9, "object": "rank_result"}
    assert bare["return_input"] is False


def test_errors_have_the_roots_format() -> None:
    error = InvalidRequest("input is required for rerank", param="input")
    assert MIXEDBREAD.render_error(error)["message"] == "input is required for rerank"
    assert MIXEDBREAD.status_of(error) == 400
