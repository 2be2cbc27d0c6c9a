from typing import Any

import pytest

from api.dialects.base import Dialect
from api.dialects.infinity import InfinityDialect
from api.dialects.jina import JinaDialect
from api.dialects.root import RootDialect
from api.dialects.superset import SupersetDialect
from api.dialects.voyage import VoyageDialect
from shared.contracts import Document
from shared.errors import InvalidRequest

BODY: dict[str, Any] = {"query": "a query", "documents": ["one", "two"]}

DIALECTS = (SupersetDialect(), RootDialect(), InfinityDialect(), JinaDialect(), VoyageDialect())


@pytest.fixture(params=DIALECTS, ids=lambda dialect: type(dialect).__name__)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    return request.param  # type: ignore[no-any-return]


def parse_error(dialect: Dialect, body: dict[str, Any]) -> tuple[str, str | None]:
    with pytest.raises(InvalidRequest) as caught:
        dialect.parse(body)
    return caught.value.message, caught.value.param


class TestAccepted:
    def test_query_and_documents_are_the_only_required_fields(self, dialect: Dialect) -> None:
        parsed = dialect.parse(BODY)
        assert parsed.query == "a query"
        assert parsed.documents == [Document(text="one"), Document(text="two")]
        assert (parsed.model, parsed.top_n, parsed.max_tokens_per_doc) == (None, None, None)
        assert (parsed.raw_scores, parsed.priority) == (False, 0)

    def test_null_is_the_same_as_a_missing_field(self, dialect: Dialect) -> None:
        optional = ["model", "top_n", "return_documents", "raw_scores", "max_tokens_per_doc", "priority", "instruction"]
        optional += ["max_tokens_per_query", "max_chunks_per_doc", "max_chunk_per_doc", "overlap_tokens", "rank_fields"]
        assert dialect.parse(BODY | dict.fromkeys(optional)) == dialect.parse(BODY)

    @pytest.mark.parametrize("name", ["", " "])
    def test_empty_model_is_the_same_as_no_model(self, dialect: Dialect, name: str) -> None:
        assert dialect.parse(BODY | {"model": name}).model is None

    def test_unknown_fields_are_ignored(self, dialect: Dialect) -> None:
        unknown = {"rank_fields": ["title"], "user": {"id": 3}, "truncate_prompt_tokens": -1, "scores": None}
        assert dialect.parse(BODY | unknown) == dialect.parse(BODY)

    @pytest.mark.parametrize(
        ("field", "value", "expected"),
        [
            ("model", "m", "m"),
            ("top_n", 1, 1),
            ("top_n", "3", 3),
            ("top_n", 3.0, 3),
            ("top_n", 10**9, 10**9),
            ("top_k", 2, 2),
            ("return_documents", True, True),
            ("return_documents", False, False),
            ("return_documents", "true", True),
            ("return_documents", "false", False),
            ("return_documents", 1, True),
            ("raw_scores", "true", True),
            ("raw_scores", True, True),
            ("max_tokens_per_doc", "128", 128),
            ("priority", 999, 999),
            ("priority", "0", 0),
            ("instruction", "Find the law", "Find the law"),
            ("max_tokens_per_query", "64", 64),
            ("max_chunks_per_doc", "10", 10),
            ("overlap_tokens", 0, 0),
        ],
    )
    def test_fields_accept_equivalent_types(
        self, dialect: Dialect, field: str, value: object, expected: object
    ) -> None:
        parsed = dialect.parse(BODY | {field: value})
        assert getattr(parsed, {"top_k": "top_n"}.get(field, field)) == expected

    def test_max_chunks_per_doc_defaults_to_one(self, dialect: Dialect) -> None:
        assert dialect.parse(BODY).max_chunks_per_doc == 1
        assert dialect.parse(BODY | {"max_chunk_per_doc": 3}).max_chunks_per_doc == 3

    def test_empty_documents_are_accepted(self, dialect: Dialect) -> None:
        assert dialect.parse(BODY | {"documents": ["", " "]}).documents == [Document(text=""), Document(text=" ")]


class TestRejected:
    @pytest.mark.parametrize("query", [None, "", " \n\t"])
    def test_missing_query_is_rejected(self, dialect: Dialect, query: str | None) -> None:
        assert parse_error(dialect, BODY | {"query": query}) == ("query is required for rerank", "query")
        assert parse_error(dialect, {"documents": ["one"]}) == ("query is required for rerank", "query")

    @pytest.mark.parametrize("query", [3, True, ["q"], {"text": "q"}])
    def test_query_other_than_a_string_is_rejected(self, dialect: Dialect, query: object) -> None:
        assert parse_error(dialect, BODY | {"query": query}) == ("query must be a string", "query")

    @pytest.mark.parametrize("documents", [None, []])
    def test_missing_documents_are_rejected(self, dialect: Dialect, documents: object) -> None:
        expected = ("documents are required for rerank", "documents")
        assert parse_error(dialect, BODY | {"documents": documents}) == expected
        assert parse_error(dialect, {"query": "q"}) == expected

    @pytest.mark.parametrize("documents", ["text", 3, {}, {"text": "t"}, True])
    def test_documents_other_than_a_list_are_rejected(self, dialect: Dialect, documents: object) -> None:
        assert parse_error(dialect, BODY | {"documents": documents}) == ("documents must be a list", "documents")

    @pytest.mark.parametrize("top_n", [0, -1, "0", -0.0])
    def test_top_n_below_one_is_rejected(self, dialect: Dialect, top_n: object) -> None:
        assert parse_error(dialect, BODY | {"top_n": top_n}) == ("top_n must be at least 1", "top_n")

    @pytest.mark.parametrize(
        ("field", "values"),
        [
            ("model", [3, True, ["m"], {}]),
            ("top_n", [2.5, "many", "", [3], {}]),
            ("return_documents", [2, "maybe", "", [], {}]),
            ("raw_scores", [2, "maybe", 0.5, [], {}]),
            ("max_tokens_per_doc", [0, -1, "many", 1.5, [], {}]),
            ("priority", [-1, 1000, "high", 0.5, [], {}]),
            ("instruction", ["", 3, True, ["i"], {}]),
            ("max_tokens_per_query", [0, -1, "many", 1.5, [], {}]),
            ("max_chunks_per_doc", [0, -1, "many", 1.5, [], {}]),
            ("max_chunk_per_doc", [0, "many", []]),
            ("overlap_tokens", [-1, "many", 1.5, [], {}]),
        ],
    )
    def test_wrong_type_or_range_is_rejected(self, dialect: Dialect, field: str, values: list[object]) -> None:
        for value in values:
            message, param = parse_error(dialect, BODY | {field: value})
            assert param == field
            assert message.startswith(f"{field}: ")
            assert "\n" not in message

    @pytest.mark.parametrize("field", ["top_n", "max_tokens_per_doc", "priority"])
    def test_bool_is_not_accepted_as_a_number(self, dialect: Dialect, field: str) -> None:
        with pytest.raises(InvalidRequest, match=field):
            dialect.parse(BODY | {field: True})

    def test_query_is_checked_first_and_documents_second(self, dialect: Dialect) -> None:
        assert parse_error(dialect, {"top_n": 0})[1] == "query"
        assert parse_error(dialect, {"query": "q", "top_n": 0})[1] == "documents"
