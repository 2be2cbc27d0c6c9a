"""What a line means, in the forms that clients write."""

import json
from typing import Any

import pytest

from api.batches.input_lines import InputLine
from api.batches.line_requests import MAX_CUSTOM_ID, LineParser, LineRequest, dialect_at
from api.dialects.registry import SUPERSET, family
from shared.errors import PayloadTooLarge

BODY: dict[str, Any] = {"query": "panda", "documents": ["one", "two"]}


def read(line: Any, *, endpoint: str = "/v1/rerank", defaults: dict[str, Any] | None = None) -> LineRequest:
    """Parse one line: bytes, or an object to write as JSON."""
    text = line if isinstance(line, bytes | None) else json.dumps(line).encode()
    parser = LineParser(endpoint, defaults, SUPERSET, 1000)
    parsed = parser.parse(InputLine(7, 0, 100, text))
    # A summary, which costs less, says the same.
    assert parser.summarize(InputLine(7, 0, 100, text)) == parsed.summary
    return parsed


def error_of(line: Any, **options: Any) -> tuple[str, str | None]:
    """The error's message, and the field that it names."""
    parsed = read(line, **options)
    assert parsed.request is None
    assert parsed.error is not None
    return parsed.error.message, parsed.error.param


class TestForms:
    @pytest.mark.parametrize(
        "line",
        [
            {"custom_id": "a", "method": "POST", "url": "/v1/rerank", "body": BODY},
            {"custom_id": "a", "body": BODY},
            {"custom_id": "a", **BODY},
        ],
        ids=["openai", "voyage", "plain"],
    )
    def test_every_form_is_the_same_request(self, line: dict[str, Any]) -> None:
        parsed = read(line)
        assert parsed.request is not None
        assert (parsed.number, parsed.summary.custom_id, parsed.dialect.name) == (7, "a", "superset")
        assert (parsed.request.query, [each.text for each in parsed.request.documents]) == ("panda", ["one", "two"])

    def test_line_needs_no_custom_id(self) -> None:
        assert read(BODY).summary.custom_id is None
        assert read({"custom_id": None, "body": BODY}).request

    def test_lines_do_not_read_the_score_cache(self) -> None:
        parsed = read(BODY)
        assert parsed.request is not None
        assert not parsed.request.use_cache

    @pytest.mark.parametrize("method", ["POST", "post", None])
    def test_method_may_be_post(self, method: str | None) -> None:
        assert read({"method": method, "url": "/v1/rerank", "body": BODY}).request


class TestUrl:
    @pytest.mark.parametrize(
        ("url", "body", "dialect"),
        [
            ("/v1/rerank", BODY, "superset"),
            ("/v2/rerank", BODY, "superset"),
            ("/cohere/v2/rerank", BODY, "cohere-v2"),
            ("/cohere/v1/rerank", BODY, "cohere-v1"),
            ("/jina/v1/rerank", BODY, "jina"),
            ("/tei/rerank", {"query": "panda", "texts": ["one", "two"]}, "tei"),
            ("/v1/score", {"text_1": "panda", "text_2": ["one", "two"]}, "vllm-score"),
            ("/vllm/score", {"text_1": "panda", "text_2": ["one", "two"]}, "vllm-score"),
            ("/openai/v1/score", {"text_1": "panda", "text_2": ["one", "two"]}, "vllm-score"),
            ("https://proxy.example/v1/rerank", BODY, "superset"),
            ("/v1//v1/rerank/", BODY, "superset"),
            ("v1/rerank", BODY, "superset"),
        ],
    )
    def test_url_selects_the_dialect(self, url: str, body: dict[str, Any], dialect: str) -> None:
        for parsed in (read({"url": url, "body": body}), read(body, endpoint=f"/{url}"), read({"url": url, **body})):
            assert parsed.request is not None, parsed.error
            assert parsed.dialect.name == dialect
            assert len(parsed.request.documents) == 2

    @pytest.mark.parametrize("url", ["/v1/embeddings", "/v1/chat/completions", "/", "", "/v1/notarerank", 7, {}])
    def test_other_urls_are_errors(self, url: Any) -> None:
        message, param = error_of({"custom_id": "a", "url": url, "body": BODY})
        assert message.startswith("url must be the path of a rerank route, not ")
        assert (param, read({"custom_id": "a", "url": url, "body": BODY}).summary.custom_id) == ("url", "a")

    def test_body_in_another_form_is_answered_in_it(self) -> None:
        assert read({"query": "panda", "texts": ["one"]}).dialect.name == "tei"

    def test_root_dialect_decides_for_paths_without_a_prefix(self) -> None:
        dialect = dialect_at("/v2/rerank", family("cohere"))
        assert dialect is not None
        assert dialect.name == "cohere-v2"
        assert dialect_at("/v1/score", family("cohere")) is None


class TestErrors:
    @pytest.mark.parametrize(
        ("line", "message", "param"),
        [
            (b"[1]", "the line must be a JSON object", None),
            (b'"text"', "the line must be a JSON object", None),
            (b"null", "the line must be a JSON object", None),
            (b"{", "the line is not valid JSON: EOF", None),
            (b"{} {}", "the line is not valid JSON: trailing characters", None),
            (b"not JSON", "the line is not valid JSON", None),
            (b'{"query": NaN}', "the line is not valid JSON", None),
            (b'{"query": "\xff"}', "the line is not valid JSON: byte 11 is not UTF-8", None),
            (b"[" * 5000, "the line is not valid JSON: recursion limit", None),
            ({"method": "GET", "body": BODY}, "method must be POST, not 'GET'", "method"),
            ({"method": ["POST"], "body": BODY}, "method must be POST, not ", "method"),
            ({"body": None}, "body must be a JSON object", "body"),
            ({"body": [BODY]}, "body must be a JSON object", "body"),
            ({"body": {"documents": ["one"]}}, "query", "query"),
            ({"body": {"query": "panda"}}, "documents", "documents"),
            ({}, "query", "query"),
        ],
    )
    def test_message_names_what_is_wrong(self, line: Any, message: str, param: str | None) -> None:
        text, named = error_of(line)
        assert text.startswith(message)
        assert named == param

    @pytest.mark.parametrize("custom_id", [7, "", [], {}, False, "x" * (MAX_CUSTOM_ID + 1)])
    def test_custom_id_of_another_type_or_size(self, custom_id: Any) -> None:
        expected = f"custom_id must be a string of 1 to {MAX_CUSTOM_ID} characters"
        assert error_of({"custom_id": custom_id, "body": BODY}) == (expected, "custom_id")
        assert read({"custom_id": custom_id, "body": BODY}).summary.custom_id is None

    def test_longest_custom_id(self) -> None:
        assert read({"custom_id": "ü" * MAX_CUSTOM_ID, "body": BODY}).request

    def test_line_that_is_too_long(self) -> None:
        parsed = read(None)
        assert isinstance(parsed.error, PayloadTooLarge)
        assert parsed.error.message == "the line is over the limit of 1000 bytes"
        assert (parsed.summary.custom_id, parsed.summary.pairs) == (None, 0)

    def test_lone_surrogate_is_replaced(self) -> None:
        parsed = read(rb'{"query": "a\ud800", "documents": ["one"]}')
        assert parsed.request is not None
        assert parsed.request.query == "a\ufffd"


class TestDefaults:
    def test_line_overrides_defaults(self) -> None:
        defaults = {"model": "default", "top_n": 1}
        parsed = read({"body": BODY | {"model": "own"}}, defaults=defaults)
        assert parsed.request is not None
        assert (parsed.request.model, parsed.request.top_n, parsed.summary.model) == ("own", 1, "own")

    @pytest.mark.parametrize("line", [{"body": BODY | {"model": None}}, BODY | {"model": None}])
    def test_null_does_not_override_a_default(self, line: dict[str, Any]) -> None:
        parsed = read(line, defaults={"model": "default"})
        assert parsed.request is not None
        assert parsed.request.model == "default"

    def test_defaults_may_complete_a_line(self) -> None:
        assert read({"query": "panda"}, defaults={"documents": ["one"]}).summary.pairs == 1

    def test_defaults_do_not_change_the_envelope(self) -> None:
        assert read(BODY, defaults={"url": "/nothing", "custom_id": "a"}).summary.custom_id is None


class TestSummary:
    @pytest.mark.parametrize(
        ("body", "pairs"),
        [
            (BODY, 2),
            ({"query": "q", "texts": ["a", "b", "c"]}, 3),
            ({"query": {"text": "q"}, "passages": [{"text": "a"}]}, 1),
            ({"text_1": "q", "text_2": ["a", "b"]}, 2),
            ({"data_1": "q", "data_2": "a"}, 1),
            ({"input": {"query": "q", "documents": ["a", "b"]}}, 2),
            ({"query": "q", "documents": {}}, 0),
            ({"query": "q", "documents": 7}, 0),
            ({"query": "q"}, 0),
        ],
    )
    def test_pairs_are_counted_in_every_dialect(self, body: dict[str, Any], pairs: int) -> None:
        assert read(body).summary.pairs == pairs

    def test_tokens_include_the_query_of_each_pair(self) -> None:
        one, ten = (read({"query": "word " * 20, "documents": ["a"] * count}).summary.tokens for count in (1, 10))
        assert ten - one > 9 * 20

    def test_model_of_another_type_is_none(self) -> None:
        assert read(BODY | {"model": 7}).summary.model is None
