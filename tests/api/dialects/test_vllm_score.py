from typing import Any

import pytest

from api.dialects.vllm_score import SIDES, VllmScoreDialect
from shared.contracts import Document, RankedRow
from tests.api.dialects.support import parse_error
from tests.api.support import make_result
from tests.shared.support import MODEL

SCORE = VllmScoreDialect()
sides = pytest.mark.parametrize(("first", "second"), SIDES, ids="+".join)


@sides
@pytest.mark.parametrize(("one", "many"), [("q", ["a", "b"]), (["q"], ["a", "b"])])
def test_one_text_and_many_become_a_query_and_its_documents(first: str, second: str, one: object, many: object) -> None:
    parsed = SCORE.parse({first: one, second: many})
    assert (parsed.query, parsed.documents) == ("q", [Document(text="a"), Document(text="b")])
    assert (parsed.top_n, parsed.return_documents) == (None, False)


@sides
def test_one_text_and_one_become_a_query_and_its_document(first: str, second: str) -> None:
    parsed = SCORE.parse({first: "q", second: "t"})
    assert (parsed.query, parsed.documents) == ("q", [Document(text="t")])


@sides
def test_two_lists_of_equal_length_become_pairs(first: str, second: str) -> None:
    parsed = SCORE.parse({first: ["q", "r"], second: ["a", "b"]})
    assert parsed.documents == [Document(text="a", query="q"), Document(text="b", query="r")]


def test_pairs_with_the_same_query_become_one_query_and_its_documents() -> None:
    assert SCORE.parse({"data_1": ["q", "q"], "data_2": ["a", "b"]}) == SCORE.parse(
        {"data_1": "q", "data_2": ["a", "b"]}
    )


def test_texts_may_be_content_parts() -> None:
    parsed = SCORE.parse({"data_1": {"content": [{"type": "text", "text": "q"}]}, "data_2": ["a"]})
    assert parsed.query == "q"


def test_first_supported_pair_of_field_names_is_used() -> None:
    body = {"queries": "q", "documents": "a", "items": "b", "data_1": "r", "data_2": "c"}
    assert SCORE.parse(body).documents == [Document(text="a")]


@pytest.mark.parametrize("limit", [{"top_n": 1}, {"top_k": 1}, {"top_n": 0}])
def test_top_n_is_ignored(limit: dict[str, int]) -> None:
    assert SCORE.parse({"data_1": "q", "data_2": ["a", "b"]} | limit).top_n is None


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        ({}, "two sides are required", "data_1"),
        ({"data_1": "q"}, "two sides are required", "data_1"),
        ({"data_1": "q", "documents": ["t"]}, "two sides are required", "data_1"),
        ({"data_1": "q", "data_2": None}, "two sides are required", "data_1"),
        ({"data_1": [], "data_2": ["t"]}, "data_1 must have at least one text", "data_1"),
        ({"data_1": "q", "data_2": []}, "data_2 must have at least one text", "data_2"),
        ({"data_1": ["q"] * 3, "data_2": ["t"] * 2}, "1 and 1, 1 and N, or N and N texts, got 3 and 2", "data_1"),
        ({"data_1": ["q"] * 2, "data_2": "t"}, "got 2 and 1", "data_1"),
        ({"data_1": ["q", 3], "data_2": ["t"] * 2}, "data_1[1] must be a string", "data_1[1]"),
    ],
)
def test_missing_or_unequal_sides_are_rejected(body: dict[str, Any], message: str, param: str) -> None:
    actual, field = parse_error(SCORE, body)
    assert message in actual
    assert field == param


def test_full_response_is_in_the_order_of_the_request() -> None:
    rows = [RankedRow(index=index, score=score, document=Document(text="t")) for index, score in ((2, 0.9), (0, 0.5))]
    assert SCORE.render(make_result(*rows, RankedRow(index=1, score=0.0, document=Document(text="")))) == {
        "id": "job-1",
        "object": "list",
        "created": 1_700_000_000,
        "model": MODEL,
        "data": [
            {"index": 0, "object": "score", "score": 0.5},
            {"index": 1, "object": "score", "score": 0.0},
            {"index": 2, "object": "score", "score": 0.9},
        ],
        "usage": {"prompt_tokens": 7, "total_tokens": 7, "completion_tokens": 0, "prompt_tokens_details": None},
    }
