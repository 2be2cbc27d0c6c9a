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


def refusal(*documents: Any, rank_fields: Any) -> tuple[str, str | None]:
    with pytest.raises(InvalidRequest) as caught:
        parse(*documents, rank_fields=rank_fields)
    return caught.value.message, caught.value.param


class TestTheText:
    def test_it_is_the_fields_as_yaml_in_the_order_of_rank_fields(self) -> None:
        assert text_of(PANDA, "body", "title") == "body: A bear.\ntitle: Giant panda\n"
        assert text_of(PANDA, "title", "body", "title") == "title: Giant panda\nbody: A bear.\n"

    def test_lists_and_objects_are_in_block_style(self) -> None:
        deep = {"tags": ["bear", {"from": "China"}], "none": [], "author": {"name": "Ada", "born": 1815}}
        assert text_of(deep, "tags", "none", "author") == (
            "tags:\n- bear\n- from: China\nnone: []\nauthor:\n  name: Ada\n  born: 1815\n"
        )

    def test_a_field_that_is_absent_or_null_is_skipped(self) -> None:
        first, second = parse({"a": 1, "b": None}, {"b": "two"}, rank_fields=["a", "b"])
        assert (first.text, second.text) == ("a: 1\n", "b: two\n")

    def test_text_is_quoted_where_yaml_needs_it(self) -> None:
        assert text_of({"t": "true"}, "t") == "t: 'true'\n"
        assert text_of({"t": "a: b"}, "t") == "t: 'a: b'\n"

    def test_long_lines_are_not_wrapped(self) -> None:
        assert text_of({"t": "word " * 1000 + "end"}, "t") == "t: " + "word " * 1000 + "end\n"

    @pytest.mark.parametrize(
        "letters", ["日本語", "Zürich", "🐼 panda", "\ue000🐼\ue001", "\\U0001F43C", "\\U0001F43C🐼"]
    )
    def test_letters_are_kept_as_they_are(self, letters: str) -> None:
        assert letters in text_of({"t": letters}, "t")
        assert yaml.safe_load(text_of({"t": [letters]}, "t")) == {"t": [letters]}

    @properties
    @given(st.dictionaries(names, values, min_size=1, max_size=4))
    def test_it_says_what_the_fields_said(self, document: dict[str, Any]) -> None:
        text = text_of(document, *reversed(document))
        assert yaml.safe_load(text) == document
        assert list(yaml.safe_load(text)) == list(reversed(document))

    def test_the_dumper_is_the_fast_one(self) -> None:
        assert yaml.CSafeDumper is rank_fields._Dumper

    def test_without_libyaml_it_is_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        document = PANDA | {"wide": "🐼: \U0001f43c " * 100, "deep": [{"lines": "one\ntwo\n"}]}
        fast = text_of(document, *document)
        monkeypatch.setattr(rank_fields, "_Dumper", yaml.SafeDumper)
        assert text_of(document, *document) == fast


class TestTheDocument:
    def test_it_is_echoed_as_it_came(self) -> None:
        source = json.loads(json.dumps(PANDA | {"none": None, "ratio": 1.0}))
        (document,) = parse(source, rank_fields=["title"])
        rows = SUPERSET.render(make_result(RankedRow(index=0, score=0.5, document=document)))["results"]
        assert rows[0]["document"] == source
        assert repr(rows[0]["document"]) == repr(source)

    def test_id_and_meta_are_the_callers(self) -> None:
        (document,) = parse(PANDA, rank_fields=["title"])
        assert (document.id, document.meta) == ("wiki", {"page": 3})

    def test_it_needs_no_text_and_its_text_is_a_field_like_any_other(self) -> None:
        assert text_of({"text": "t", "title": "x"}, "title") == "title: x\n"
        assert text_of({"text": "t", "title": "x"}, "text", "title") == "text: t\ntitle: x\n"

    def test_the_text_alone_is_no_yaml(self) -> None:
        first, second = parse({"text": "true: yes", "title": "x"}, {"text": ["t"]}, rank_fields=["text"])
        assert (first.text, second.text) == ("true: yes", "text:\n- t\n")
        assert first.fields == {"text": "true: yes", "title": "x"}

    def test_a_string_has_no_fields_and_is_scored_as_it_is(self) -> None:
        texts = [document.text for document in parse("plain", PANDA, rank_fields=["title"])]
        assert texts == ["plain", "title: Giant panda\n"]

    @pytest.mark.parametrize("absent", [None, []])
    def test_without_rank_fields_an_object_has_a_text(self, absent: Any) -> None:
        assert parse({"text": "t", "title": "x", "fields": {"a": 1}}, rank_fields=absent) == [Document(text="t")]
        assert refusal({"text": "t"}, {"title": "x"}, rank_fields=absent)[1] == "documents[1].text"

    def test_where_documents_are_strings_only_rank_fields_mean_nothing(self) -> None:
        body = {"query": "q", "documents": ["t"], "rank_fields": "title"}
        assert InfinityDialect().parse(body).documents == [Document(text="t")]


class TestRefusals:
    @pytest.mark.parametrize("wrong", ["title", 3, {}, {"title": 1}, False, ""])
    def test_rank_fields_are_a_list(self, wrong: Any) -> None:
        assert refusal(PANDA, rank_fields=wrong) == ("rank_fields must be a list of strings", "rank_fields")

    @pytest.mark.parametrize("wrong", ["", None, 3, ["title"]])
    def test_a_rank_field_is_a_string(self, wrong: Any) -> None:
        expected = ("rank_fields[1] must be a string, and not empty", "rank_fields[1]")
        assert refusal(PANDA, rank_fields=["title", wrong]) == expected

    def test_a_field_that_no_document_has_is_a_mistake(self) -> None:
        expected = ("rank_fields[1]: no document has a field 'titel'", "rank_fields[1]")
        assert refusal(PANDA, {"title": "x", "titel": None}, rank_fields=["title", "titel"]) == expected

    def test_a_document_has_one_of_the_fields(self) -> None:
        expected = ("documents[1] has none of the rank_fields", "documents[1]")
        assert refusal(PANDA, {"text": "t"}, rank_fields=["title", "body"]) == expected

    def test_what_is_no_json_on_the_way_back_is_refused(self) -> None:
        assert refusal({"a": 1, "b": [float("inf")]}, rank_fields=["a"])[1] == "documents[0].fields"

    def test_neither_many_fields_nor_many_names_are_slow(self) -> None:
        """Looked up one in the other, these would be ten thousand million comparisons."""
        wide = {f"field {number}": number for number in range(100_000)}
        assert len(text_of(wide | {"first": 1}, *wide)) > 1_000_000
