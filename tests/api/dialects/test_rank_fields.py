import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from api.dialects import rank_fields
from api.dialects.infinity import InfinityDialect
from api.dialects.superset import SupersetDialect
from shared.contracts import Document, RankedRow
from shared.errors import InvalidRequest
from tests.api.support import make_result
from tests.shared.support import properties

SUPERSET = SupersetDialect()
PANDA = {"title": "Giant panda", "id": "wiki", "meta": {"page": 3}, "body": "A bear.", "tags": ["bear", "China"]}
names = st.text(min_size=1, max_size=8)
values = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=4,
)


def parse(*documents: Any, rank_fields: Any) -> list[Document]:
    return SUPERSET.parse({"query": "q", "documents": list(documents), "rank_fields": rank_fields}).documents


def text_of(document: dict[str, Any], *names: str) -> str:
    return parse(document, rank_fields=list(names))[0].text


def parse_error(*documents: Any, rank_fields: Any) -> tuple[str, str | None]:
    with pytest.raises(InvalidRequest) as caught:
        parse(*documents, rank_fields=rank_fields)
    return caught.value.message, caught.value.param


class TestText:
    def test_text_is_yaml_with_the_fields_in_the_order_of_rank_fields(self) -> None:
        assert text_of(PANDA, "body", "title") == "body: A bear.\ntitle: Giant panda\n"
        assert text_of(PANDA, "title", "body", "title") == "title: Giant panda\nbody: A bear.\n"

    def test_lists_and_objects_are_in_block_style(self) -> None:
        deep = {"tags": ["bear", {"from": "China"}], "none": [], "author": {"name": "Ada", "born": 1815}}
        assert text_of(deep, "tags", "none", "author") == (
            "tags:\n- bear\n- from: China\nnone: []\nauthor:\n  name: Ada\n  born: 1815\n"
        )

    def test_missing_and_null_fields_are_skipped(self) -> None:
        first, second = parse({"a": 1, "b": None}, {"b": "two"}, rank_fields=["a", "b"])
        assert (first.text, second.text) == ("a: 1\n", "b: two\n")

    def test_strings_are_quoted_where_yaml_requires_it(self) -> None:
        assert text_of({"t": "true"}, "t") == "t: 'true'\n"
        assert text_of({"t": "a: b"}, "t") == "t: 'a: b'\n"

    def test_long_lines_are_not_wrapped(self) -> None:
        assert text_of({"t": "word " * 1000 + "end"}, "t") == "t: " + "word " * 1000 + "end\n"

    @pytest.mark.parametrize(
        "characters", ["日本語", "Zürich", "🐼 panda", "\ue000🐼\ue001", "\\U0001F43C", "\\U0001F43C🐼"]
    )
    def test_unicode_characters_are_not_escaped(self, characters: str) -> None:
        assert characters in text_of({"t": characters}, "t")
        assert yaml.safe_load(text_of({"t": [characters]}, "t")) == {"t": [characters]}

    @properties
    @given(st.dictionaries(names, values, min_size=1, max_size=4))
    def test_yaml_loads_to_the_original_fields_in_order(self, document: dict[str, Any]) -> None:
        text = text_of(document, *reversed(document))
        assert yaml.safe_load(text) == document
        assert list(yaml.safe_load(text)) == list(reversed(document))

    def test_dumper_uses_libyaml(self) -> None:
        assert yaml.CSafeDumper is rank_fields._Dumper

    def test_text_is_the_same_without_libyaml(self, monkeypatch: pytest.MonkeyPatch) -> None:
        document = PANDA | {"wide": "🐼: \U0001f43c " * 100, "deep": [{"lines": "one\ntwo\n"}]}
        fast = text_of(document, *document)
        monkeypatch.setattr(rank_fields, "_Dumper", yaml.SafeDumper)
        assert text_of(document, *document) == fast


class TestDocument:
    def test_document_is_returned_unchanged(self) -> None:
        source = json.loads(json.dumps(PANDA | {"none": None, "ratio": 1.0}))
        (document,) = parse(source, rank_fields=["title"])
        rows = SUPERSET.render(make_result(RankedRow(index=0, score=0.5, document=document)))["results"]
        assert rows[0]["document"] == source
        assert repr(rows[0]["document"]) == repr(source)

    def test_id_and_meta_are_kept(self) -> None:
        (document,) = parse(PANDA, rank_fields=["title"])
        assert (document.id, document.meta) == ("wiki", {"page": 3})

    def test_text_is_optional_and_a_field_like_any_other(self) -> None:
        assert text_of({"text": "t", "title": "x"}, "title") == "title: x\n"
        assert text_of({"text": "t", "title": "x"}, "text", "title") == "text: t\ntitle: x\n"

    def test_rank_field_text_alone_is_not_rendered_as_yaml(self) -> None:
        first, second = parse({"text": "true: yes", "title": "x"}, {"text": ["t"]}, rank_fields=["text"])
        assert (first.text, second.text) == ("true: yes", "text:\n- t\n")
        assert first.fields == {"text": "true: yes", "title": "x"}

    def test_string_document_is_scored_unchanged(self) -> None:
        texts = [document.text for document in parse("plain", PANDA, rank_fields=["title"])]
        assert texts == ["plain", "title: Giant panda\n"]

    @pytest.mark.parametrize("absent", [None, []])
    def test_object_needs_a_text_without_rank_fields(self, absent: Any) -> None:
        assert parse({"text": "t", "title": "x", "fields": {"a": 1}}, rank_fields=absent) == [Document(text="t")]
        assert parse_error({"text": "t"}, {"title": "x"}, rank_fields=absent)[1] == "documents[1].text"

    def test_rank_fields_are_ignored_where_documents_are_strings(self) -> None:
        body = {"query": "q", "documents": ["t"], "rank_fields": "title"}
        assert InfinityDialect().parse(body).documents == [Document(text="t")]


class TestRejections:
    @pytest.mark.parametrize("wrong", ["title", 3, {}, {"title": 1}, False, ""])
    def test_rank_fields_other_than_a_list_are_rejected(self, wrong: Any) -> None:
        assert parse_error(PANDA, rank_fields=wrong) == ("rank_fields must be a list of strings", "rank_fields")

    @pytest.mark.parametrize("wrong", ["", None, 3, ["title"]])
    def test_rank_field_that_is_empty_or_not_a_string_is_rejected(self, wrong: Any) -> None:
        expected = ("rank_fields[1] must be a string, and not empty", "rank_fields[1]")
        assert parse_error(PANDA, rank_fields=["title", wrong]) == expected

    def test_rank_field_that_no_document_has_is_rejected(self) -> None:
        expected = ("rank_fields[1]: no document has a field 'titel'", "rank_fields[1]")
        assert parse_error(PANDA, {"title": "x", "titel": None}, rank_fields=["title", "titel"]) == expected

    def test_document_without_any_rank_field_is_rejected(self) -> None:
        expected = ("documents[1] has none of the rank_fields", "documents[1]")
        assert parse_error(PANDA, {"text": "t"}, rank_fields=["title", "body"]) == expected

    def test_field_that_cannot_be_returned_as_json_is_rejected(self) -> None:
        assert parse_error({"a": 1, "b": [float("inf")]}, rank_fields=["a"])[1] == "documents[0].fields"

    def test_many_fields_and_many_rank_fields_are_fast(self) -> None:
        """Searching one list for each entry of the other would take ten thousand million comparisons."""
        wide = {f"field {number}": number for number in range(100_000)}
        assert len(text_of(wide | {"first": 1}, *wide)) > 1_000_000
