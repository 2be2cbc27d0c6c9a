from typing import Any

import pytest

from api.dialects.bifrost import BifrostDialect
from shared.contracts import Document, RankedRow
from shared.errors import InternalError, InvalidRequest, ModelNotFound
from tests.api.dialects.support import BODY, ROWS, parse_error
from tests.api.support import make_result

BIFROST = BifrostDialect()


@pytest.mark.parametrize("blank", ["", " \n", {"text": ""}, {"text": " ", "id": "x"}, {"id": "x"}])
def test_blank_document_is_rejected(blank: object) -> None:
    message = "document text is required for rerank at index 1"
    assert parse_error(BIFROST, BODY | {"documents": ["one", blank]}) == (message, "documents[1].text")


def test_documents_are_strings_or_objects_with_id_and_meta() -> None:
    documents = ["one", {"text": "two", "id": "doc-2", "meta": {"page": 3}}]
    assert BIFROST.parse(BODY | {"documents": documents}).documents == [
        Document(text="one"),
        Document(text="two", id="doc-2", meta={"page": 3}),
    ]


def test_model_and_fallbacks_keep_their_order() -> None:
    body = BODY | {"model": "vllm/a", "fallbacks": ["cohere/b", {"provider": "vllm", "model": "org/c"}]}
    parsed = BIFROST.parse(body)
    assert (parsed.model, parsed.fallbacks) == ("vllm/a", ["cohere/b", "vllm/org/c"])
    assert BIFROST.parse(BODY | {"fallbacks": None}).fallbacks == []


@pytest.mark.parametrize("fallbacks", ["vllm/a", [3], [""], [{"model": "a"}], ["a"] * 17, {}])
def test_invalid_fallbacks_are_rejected(fallbacks: object) -> None:
    assert parse_error(BIFROST, BODY | {"fallbacks": fallbacks})[1] == "fallbacks"


@pytest.mark.parametrize(
    ("name", "provider", "model"),
    [
        ("vllm/all-MiniLM", "vllm", "all-MiniLM"),
        ("vllm/BAAI/bge-reranker", "vllm", "BAAI/bge-reranker"),
        ("all-MiniLM", "rerankq", "all-MiniLM"),
    ],
)
def test_model_name_is_split_into_provider_and_model(name: str, provider: str, model: str) -> None:
    response = BIFROST.render(make_result().model_copy(update={"model": name}))
    assert (response["model"], response["extra_fields"]["provider"]) == (model, provider)


def test_full_response() -> None:
    row = RankedRow(index=2, score=0.1, document=Document(text="c", id="doc-c", meta={"page": 3}))
    result = make_result(*ROWS, row).model_copy(update={"model": "vllm/m", "queue_ms": 1.4, "inference_ms": 20.3})
    assert BIFROST.render(result) == {
        "id": "job-1",
        "results": [
            {"index": 1, "relevance_score": 0.9, "document": {"text": "b"}},
            {"index": 0, "relevance_score": 0.0, "document": {"text": ""}},
            {"index": 2, "relevance_score": 0.1, "document": {"text": "c", "id": "doc-c", "meta": {"page": 3}}},
        ],
        "model": "m",
        "usage": {"prompt_tokens": 7, "completion_tokens": 0, "total_tokens": 7},
        "extra_fields": {"request_type": "rerank", "provider": "vllm", "latency": 22, "chunk_index": 0},
    }


@pytest.mark.parametrize(
    ("error", "body"),
    [
        (
            InvalidRequest("top_n must be at least 1", param="top_n"),
            {
                "is_bifrost_error": False,
                "status_code": 400,
                "error": {"type": "invalid_request", "message": "top_n must be at least 1", "param": "top_n"},
                "extra_fields": {"request_type": "rerank"},
            },
        ),
        (
            InternalError("a fault"),
            {
                "is_bifrost_error": True,
                "status_code": 500,
                "error": {"type": "internal_error", "message": "a fault"},
                "extra_fields": {"request_type": "rerank"},
            },
        ),
    ],
)
def test_errors_have_bifrosts_format(error: Any, body: dict[str, Any]) -> None:
    assert BIFROST.render_error(error) == body
    assert BIFROST.status_of(error) == body["status_code"]


def test_unknown_model_is_404() -> None:
    assert BIFROST.status_of(ModelNotFound("x")) == 404
