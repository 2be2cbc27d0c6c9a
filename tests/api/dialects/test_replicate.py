"""Pairs as rerankers on Replicate read them, and the errors below /replicate."""

import json
from typing import Any

import pytest

from api.dialects.replicate import ReplicateDialect
from shared.contracts import Document, RankedRow
from shared.errors import InvalidRequest, ModelNotFound, RateLimited, StoreUnavailable, Unauthorized
from tests.api.support import make_result

DIALECT = ReplicateDialect()


@pytest.mark.parametrize("encode", [json.dumps, lambda pairs: pairs], ids=["string", "list"])
def test_pairs_with_one_query_are_its_documents(encode: Any) -> None:
    request = DIALECT.parse({"input_list": encode([["q", "a"], ["q", "b"]]), "priority": 7, "top_n": 1})
    assert (request.query, [document.text for document in request.documents]) == ("q", ["a", "b"])
    assert (request.priority, request.top_n, request.return_documents) == (7, None, False)


def test_each_pair_may_have_a_query_of_its_own() -> None:
    request = DIALECT.parse({"input_list": [["q", "a"], ["r", "b"]]})
    assert [(document.query, document.text) for document in request.documents] == [("q", "a"), ("r", "b")]


def test_scores_are_in_the_order_of_the_pairs() -> None:
    rows = [RankedRow(index=index, score=score, document=Document(text="")) for index, score in ((1, 0.9), (0, 0.1))]
    assert DIALECT.render(make_result(*rows)) == [0.1, 0.9]


@pytest.mark.parametrize(
    "pairs", [None, [], "", "[[", "3", "[" * 100_000, [["q"]], [["q", "a", "b"]], [["q", 3]], ["qa"], {"q": "a"}]
)
def test_invalid_pairs_are_refused(pairs: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^input_list") as raised:
        DIALECT.parse({"input_list": pairs})
    assert raised.value.param == "input_list"


@pytest.mark.parametrize(
    ("error", "status", "title"),
    [
        (InvalidRequest("no query", param="query"), 422, "Input validation failed"),
        (InvalidRequest("no model", param="version"), 422, "Invalid version or not permitted"),
        (Unauthorized("no key"), 401, "Unauthenticated"),
        (ModelNotFound("no model", param="model"), 404, "Not Found"),
        (RateLimited("too many", policy="", retry_after=1), 429, "Too Many Requests"),
        (StoreUnavailable("unreachable", retry_after=2), 503, "Service Unavailable"),
    ],
)
def test_error_is_a_problem_as_in_rfc_7807(error: Any, status: int, title: str) -> None:
    body = DIALECT.render_error(error)
    assert (DIALECT.status_of(error), body["status"], body["title"]) == (status, status, title)
    assert (body["detail"], body["type"]) == (error.message, error.code)
