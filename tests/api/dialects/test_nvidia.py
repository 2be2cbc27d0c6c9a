from typing import Any

import pytest

from api.dialects.nvidia import NvidiaDialect
from shared.contracts import Document
from shared.errors import InvalidRequest, ModelNotFound, StoreUnavailable, TextTooLong
from tests.api.dialects.support import ROWS, parse_error
from tests.api.support import make_result

NVIDIA = NvidiaDialect()
BODY: dict[str, Any] = {"query": {"text": "q"}, "passages": [{"text": "one"}, {"text": "two", "image": "data:..."}]}


def test_query_and_passages_are_objects_with_a_text() -> None:
    parsed = NVIDIA.parse(BODY | {"truncate": "END"})
    assert (parsed.query, parsed.documents) == ("q", [Document(text="one"), Document(text="two")])
    assert (parsed.raw_scores, parsed.return_documents) == (True, False)


def test_query_and_passages_may_be_strings() -> None:
    assert NVIDIA.parse({"query": "q", "passages": ["one", "two"]}) == NVIDIA.parse(BODY)


@pytest.mark.parametrize(
    ("change", "message", "param"),
    [
        ({"query": {}}, "query is required for rerank", "query.text"),
        ({"query": {"text": " "}}, "query is required for rerank", "query"),
        ({"query": {"text": 3}}, "query must be a string", "query"),
        ({"query": None}, "query is required for rerank", "query"),
        ({"passages": []}, "passages are required for ranking", "passages"),
        ({"passages": "t"}, "passages must be a list", "passages"),
        ({"passages": [{"image": "x"}]}, "document text is required for rerank at index 0", "passages[0].text"),
        ({"passages": [3]}, "passages[0] must be a string or an object with text", "passages[0]"),
    ],
)
def test_error_names_the_invalid_field(change: dict[str, Any], message: str, param: str) -> None:
    assert parse_error(NVIDIA, BODY | change) == (message, param)


def test_a_passage_that_is_too_long_is_400_with_nvidias_message() -> None:
    error = TextTooLong("documents[0]: too long", param="documents[0]", tokens=600, limit=512)
    assert NVIDIA.status_of(error) == 400
    rendered = NVIDIA.render_error(error)
    message = "Input length 600 exceeds maximum allowed token size 512"
    assert (rendered["message"], rendered["detail"], rendered["type"]) == (message, message, "invalid_request_error")


def test_full_response() -> None:
    assert NVIDIA.render(make_result(*ROWS)) == {"rankings": [{"index": 1, "logit": 0.9}, {"index": 0, "logit": 0.0}]}


def test_errors_have_the_fields_that_nim_clients_read_and_validation_is_422() -> None:
    error = InvalidRequest("query is required for rerank", param="query")
    assert NVIDIA.render_error(error) == {
        "object": "error",
        "message": "query is required for rerank",
        "detail": "query is required for rerank",
        "type": "invalid_request_error",
    }
    assert NVIDIA.status_of(error) == 422
    assert NVIDIA.status_of(ModelNotFound("x")) == 404
    assert NVIDIA.render_error(StoreUnavailable("x"))["type"] == "store_unavailable"
