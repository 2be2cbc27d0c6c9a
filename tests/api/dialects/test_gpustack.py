import pytest

from api.dialects.gpustack import GpustackDialect
from shared.errors import InvalidRequest, JobExpired, ModelNotFound, RerankqError, StoreUnavailable
from tests.api.dialects.support import BODY, ROWS, parse_error
from tests.api.support import make_result
from tests.shared.support import MODEL

GPUSTACK = GpustackDialect()


def test_scores_are_raw_by_default() -> None:
    assert GPUSTACK.parse(BODY).raw_scores
    assert not GPUSTACK.parse(BODY | {"raw_scores": False}).raw_scores


def test_documents_are_strings_and_returned_by_default() -> None:
    assert GPUSTACK.parse(BODY).return_documents
    assert parse_error(GPUSTACK, BODY | {"documents": [{"text": "t"}]})[1] == "documents[0]"


def test_full_response() -> None:
    assert GPUSTACK.render(make_result(*ROWS)) == {
        "model": MODEL,
        "object": "list",
        "results": [
            {"document": {"text": "b"}, "index": 1, "relevance_score": 0.9},
            {"document": {"text": ""}, "index": 0, "relevance_score": 0.0},
        ],
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    }
    rows = GPUSTACK.render(make_result(*ROWS, return_documents=False))["results"]
    assert rows == [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.0}]


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (InvalidRequest("x"), 400, "BadRequest"),
        (ModelNotFound("x"), 404, "NotFound"),
        (StoreUnavailable("x"), 503, "ServiceUnavailable"),
        (JobExpired("x"), 504, "GatewayTimeout"),
    ],
)
def test_errors_have_gpustacks_format(error: RerankqError, status: int, kind: str) -> None:
    assert GPUSTACK.render_error(error) == {"error": {"message": "x", "code": status, "type": kind}}
    assert GPUSTACK.status_of(error) == status
