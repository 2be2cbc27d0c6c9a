from typing import Any

import pytest

from api.dialects.dashscope import DashscopeDialect
from shared.contracts import Document
from shared.errors import (
    InvalidRequest,
    JobNotFound,
    ModelNotFound,
    Overloaded,
    RateLimited,
    RerankqError,
    ScoringFailed,
)
from tests.api.dialects.support import ROWS, parse_error
from tests.api.support import make_result

DASHSCOPE = DashscopeDialect()
BODY: dict[str, Any] = {"model": "m", "input": {"query": "q", "documents": ["one", {"text": "two"}]}}


def test_query_and_documents_are_read_from_input_and_options_from_parameters() -> None:
    parsed = DASHSCOPE.parse(BODY | {"parameters": {"top_n": 1, "return_documents": True, "instruct": "i"}})
    assert (parsed.model, parsed.query, parsed.top_n, parsed.instruction) == ("m", "q", 1, "i")
    assert parsed.documents == [Document(text="one"), Document(text="two")]
    assert parsed.return_documents
    assert DASHSCOPE.parse(BODY | {"parameters": {"top_n": None}}) == DASHSCOPE.parse(BODY | {"parameters": None})
    assert not DASHSCOPE.parse(BODY).return_documents


def test_shared_fields_are_read_from_the_top_level() -> None:
    assert DASHSCOPE.parse(BODY | {"priority": 5, "instruction": "i"}).priority == 5


@pytest.mark.parametrize(
    ("change", "message", "param"),
    [
        ({"input": None}, "query is required for rerank", "query"),
        ({"input": {"query": "q"}}, "documents are required for rerank", "documents"),
        ({"input": ["q"]}, "input must be an object", "input"),
        ({"parameters": 3}, "parameters must be an object", "parameters"),
        ({"parameters": {"top_n": 0}}, "top_n must be at least 1", "top_n"),
        ({"parameters": {"instruct": 3}}, "instruct: input should be a valid string", "instruct"),
    ],
)
def test_error_names_the_invalid_field(change: dict[str, Any], message: str, param: str) -> None:
    assert parse_error(DASHSCOPE, BODY | change) == (message, param)


def test_full_response() -> None:
    assert DASHSCOPE.render(make_result(*ROWS)) == {
        "output": {
            "results": [
                {"index": 1, "relevance_score": 0.9, "document": {"text": "b"}},
                {"index": 0, "relevance_score": 0.0, "document": {"text": ""}},
            ]
        },
        "usage": {"total_tokens": 7},
        "request_id": "job-1",
    }
    bare = DASHSCOPE.render(make_result(*ROWS, return_documents=False))
    assert bare["output"]["results"][0] == {"index": 1, "relevance_score": 0.9}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidRequest("x"), "InvalidParameter"),
        (ModelNotFound("x"), "Model.NotExist"),
        (JobNotFound("x"), "NotFound"),
        (Overloaded("x", retry_after=1), "ServiceUnavailable"),
        (RateLimited("x"), "Throttling"),
        (ScoringFailed("x"), "InternalError"),
    ],
)
def test_errors_have_dashscopes_codes(error: RerankqError, code: str) -> None:
    assert DASHSCOPE.render_error(error, "r") == {"code": code, "message": "x", "request_id": "r"}
