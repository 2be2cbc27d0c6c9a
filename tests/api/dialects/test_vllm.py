from typing import Any

import pytest

from api.dialects.vllm import VllmRerankDialect
from shared.contracts import Document, Truncation
from shared.errors import InvalidRequest, ModelNotFound, ScoringFailed, StoreUnavailable, WaitTimedOut
from tests.api.dialects.support import BODY, ROWS, parse_error
from tests.api.support import make_result
from tests.shared.support import MODEL

VLLM = VllmRerankDialect()


def parts(*texts: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text} for text in texts]}


class TestParsing:
    @pytest.mark.parametrize("documents", ["one", ["one"], parts("one"), [parts("one")]])
    def test_documents_may_be_a_text_content_parts_or_a_list_of_them(self, documents: object) -> None:
        assert VLLM.parse(BODY | {"documents": documents}).documents == [Document(text="one")]

    def test_content_parts_are_joined_as_lines(self) -> None:
        parsed = VLLM.parse({"query": parts("what", "is it?"), "documents": [parts("a", "b")]})
        assert (parsed.query, parsed.documents[0].text) == ("what\nis it?", "a\nb")

    @pytest.mark.parametrize(
        "document",
        [
            {"content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]},
            {"content": [{"type": "text", "text": "t"}, {"type": "video_url"}]},
            {"content": [{"type": "text"}]},
            {"content": ["t"]},
        ],
    )
    def test_content_other_than_text_is_rejected(self, document: object) -> None:
        assert parse_error(VLLM, BODY | {"documents": ["t", document]}) == (
            "documents[1]: only text can be scored here",
            "documents[1]",
        )

    @pytest.mark.parametrize("document", [3, None, {"text": "t"}, {"content": "t"}, {"content": []}, ["t"]])
    def test_other_types_of_documents_are_rejected(self, document: object) -> None:
        assert parse_error(VLLM, BODY | {"documents": [document]})[1] == "documents[0]"

    @pytest.mark.parametrize("field", ["top_n", "max_tokens_per_query", "max_tokens_per_doc"])
    def test_zero_means_no_limit(self, field: str) -> None:
        assert getattr(VLLM.parse(BODY | {field: 0}), field) is None
        assert getattr(VLLM.parse(BODY | {field: 2}), field) == 2
        assert parse_error(VLLM, BODY | {field: -1})[1] == field
        assert parse_error(VLLM, BODY | {field: False})[1] == field

    @pytest.mark.parametrize(("limit", "expected"), [(None, None), (-1, None), (64, 64), ("64", 64)])
    def test_truncate_prompt_tokens_limits_the_prompt(self, limit: object, expected: int | None) -> None:
        assert VLLM.parse(BODY | {"truncate_prompt_tokens": limit}).max_prompt_tokens == expected
        both = VLLM.parse(BODY | {"truncate_prompt_tokens": limit, "max_tokens_per_doc": 8})
        assert (both.max_prompt_tokens, both.max_tokens_per_doc) == (expected, 8)

    @pytest.mark.parametrize(
        ("side", "truncation"), [("left", Truncation.START), ("right", Truncation.END), (None, Truncation.END)]
    )
    def test_truncation_side_left_keeps_the_end_of_texts(self, side: object, truncation: Truncation) -> None:
        assert VLLM.parse(BODY | {"truncation_side": side}).truncation is truncation

    @pytest.mark.parametrize(
        ("value", "raw"), [(True, False), (False, True), ("false", True), ("True", False), (0, True)]
    )
    def test_scores_are_raw_without_activation(self, value: object, raw: bool) -> None:
        assert VLLM.parse(BODY | {"use_activation": value}).raw_scores is raw
        assert VLLM.parse(BODY).raw_scores is False

    @pytest.mark.parametrize("value", ["maybe", 2, [], {}])
    def test_invalid_use_activation_is_rejected(self, value: object) -> None:
        assert parse_error(VLLM, BODY | {"use_activation": value})[1] == "use_activation"

    @pytest.mark.parametrize(("priority", "expected"), [(-(2**63), 0), (5, 5), (2**63 - 1, 999), ("7", 7)])
    def test_priorities_are_clamped_to_the_supported_range(self, priority: object, expected: int) -> None:
        assert VLLM.parse(BODY | {"priority": priority}).priority == expected


def test_full_response_always_has_the_documents() -> None:
    assert VLLM.render(make_result(*ROWS, return_documents=False)) == {
        "id": "job-1",
        "model": MODEL,
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
        "results": [
            {"index": 1, "document": {"text": "b", "multi_modal": None}, "relevance_score": 0.9},
            {"index": 0, "document": {"text": "", "multi_modal": None}, "relevance_score": 0.0},
        ],
    }


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (InvalidRequest("x", param="p"), 400, "BadRequestError"),
        (ModelNotFound("x", param="p"), 404, "NotFoundError"),
        (ScoringFailed("x", param="p"), 500, "InternalServerError"),
        (StoreUnavailable("x", param="p"), 503, "ServiceUnavailableError"),
    ],
)
def test_errors_have_vllms_format(error: Any, status: int, kind: str) -> None:
    assert VLLM.render_error(error) == {"error": {"message": "x", "type": kind, "param": "p", "code": status}}
    assert VLLM.status_of(error) == status


def test_error_unknown_to_vllm_keeps_its_own_type() -> None:
    error = WaitTimedOut("x", job_id="job-1", retry_after=1)
    assert VLLM.render_error(error)["error"]["type"] == "wait_timed_out"
