from typing import Any

import pytest
from pydantic_core import to_json

from api.dialects.superset import SupersetDialect
from shared.contracts import Document, RankedRow
from shared.errors import InvalidRequest
from shared.ledger import encoding
from tests.api.support import make_result
from tests.shared.support import MODEL

SUPERSET = SupersetDialect()
DOCUMENT = Document(text="b", id="doc-b", meta={"page": 3, "note": None})
ROWS = (
    RankedRow(index=1, score=0.9, document=DOCUMENT, truncated=True),
    RankedRow(index=0, score=0.25, document=Document(text="a")),
    RankedRow(index=2, score=0.0, document=Document(text=""), error="the document is empty"),
)


def parse(*documents: Any) -> list[Document]:
    return SUPERSET.parse({"query": "q", "documents": list(documents)}).documents


class TestDocuments:
    def test_documents_may_be_strings_objects_or_both(self) -> None:
        mixed = parse("one", {"text": "two"}, {"text": "three", "id": "3", "meta": {"a": [1, None]}})
        assert mixed == [
            Document(text="one"),
            Document(text="two"),
            Document(text="three", id="3", meta={"a": [1, None]}),
        ]

    @pytest.mark.parametrize("value", ["a-1", "", 0, 7, 10**30])
    def test_id_keeps_its_type(self, value: object) -> None:
        (document,) = parse({"text": "t", "id": value})
        assert document.id == value
        assert type(document.id) is type(value)

    @pytest.mark.parametrize("value", [None, [], {}, "x", 0, False, [{"deep": [None]}]])
    def test_meta_may_be_any_json_value(self, value: object) -> None:
        (document,) = parse({"text": "t", "meta": value})
        assert document.meta == value

    def test_other_fields_of_an_object_are_ignored(self) -> None:
        assert parse({"text": "t", "title": "x", "image": None}) == [Document(text="t")]

    @pytest.mark.parametrize("document", [{}, {"text": None}, {"id": "x"}, {"Text": "t"}])
    def test_object_without_a_text_is_rejected(self, document: object) -> None:
        with pytest.raises(InvalidRequest) as caught:
            parse("one", document)
        assert caught.value.message == "document text is required for rerank at index 1"
        assert caught.value.param == "documents[1].text"

    def test_all_fields_are_scored_when_no_object_has_a_text(self) -> None:
        first, second = {"id": 1, "title": "t", "": "x", "year": None}, {"page": 3, "title": "u", "meta": "m"}
        assert parse(first, second) == [
            Document(id=1, text="title: t\n", fields=first),
            Document(meta="m", text="title: u\npage: 3\n", fields=second),
        ]

    @pytest.mark.parametrize(
        "documents", [[{}], [{"id": "x", "meta": "y"}], [{"title": None}], [{"title": "t"}, "two"]]
    )
    def test_objects_without_any_field_to_score_are_rejected(self, documents: list[object]) -> None:
        with pytest.raises(InvalidRequest) as caught:
            parse(*documents)
        assert caught.value.param == "documents[0].text"

    @pytest.mark.parametrize("document", [None, 3, True, ["text"]])
    def test_other_types_of_documents_are_rejected(self, document: object) -> None:
        with pytest.raises(InvalidRequest) as caught:
            parse(document)
        assert caught.value.message == "documents[0] must be a string or an object with text"
        assert caught.value.param == "documents[0]"

    @pytest.mark.parametrize(
        ("document", "param"),
        [
            ({"text": 3}, "documents[0].text"),
            ({"text": ["t"]}, "documents[0].text"),
            ({"text": "t", "id": 1.5}, "documents[0].id"),
            ({"text": "t", "id": ["x"]}, "documents[0].id"),
            # Parsed from 1e999; JSON cannot represent infinity in the response.
            ({"text": "t", "meta": {"deep": [float("inf")]}}, "documents[0].meta"),
        ],
    )
    def test_error_names_the_field_with_the_wrong_type(self, document: object, param: str) -> None:
        with pytest.raises(InvalidRequest) as caught:
            parse(document)
        assert caught.value.param == param
        assert caught.value.message.startswith(f"{param}: ")

    @pytest.mark.parametrize("value", [True, 1.0, 1, "1"])
    def test_id_is_rejected_or_kept_but_never_converted(self, value: object) -> None:
        try:
            (document,) = parse({"text": "t", "id": value})
        except InvalidRequest:
            return
        assert type(document.id) is type(value)


def test_documents_are_returned_by_default() -> None:
    assert SUPERSET.parse({"query": "q", "documents": ["t"]}).return_documents
    assert not SUPERSET.parse({"query": "q", "documents": ["t"], "return_documents": False}).return_documents


class TestRendering:
    def test_full_response(self) -> None:
        assert SUPERSET.render(make_result(*ROWS)) == {
            "id": "job-1",
            "object": "rerank",
            "created": 1_700_000_000,
            "model": MODEL,
            "results": [
                {
                    "index": 1,
                    "relevance_score": 0.9,
                    "truncated": True,
                    "document": {"text": "b", "id": "doc-b", "meta": {"page": 3, "note": None}},
                },
                {"index": 0, "relevance_score": 0.25, "document": {"text": "a"}},
                {
                    "index": 2,
                    "relevance_score": 0.0,
                    "error": "the document is empty",
                    "document": {"text": ""},
                },
            ],
            "data": [
                {"index": 1, "relevance_score": 0.9, "truncated": True, "score": 0.9},
                {"index": 0, "relevance_score": 0.25, "score": 0.25},
                {"index": 2, "relevance_score": 0.0, "error": "the document is empty", "score": 0.0},
            ],
            "usage": {"prompt_tokens": 7, "completion_tokens": 0, "total_tokens": 7, "rerank_units": 1},
            "meta": {
                "api_version": {"version": "2"},
                "billed_units": {"search_units": 1},
                "tokens": {"input_tokens": 7, "output_tokens": 0},
            },
        }

    def test_best_window_is_reported(self) -> None:
        row = RankedRow(index=0, score=0.5, document=Document(text="a long one"), window=(2, 6))
        response = SUPERSET.render(make_result(row, return_documents=False))
        expected = {"index": 0, "relevance_score": 0.5, "window": {"start": 2, "end": 6}}
        assert response["results"] == [expected]
        assert response["data"] == [expected | {"score": 0.5}]

    def test_cached_pairs_are_reported_unless_there_are_none(self) -> None:
        result = make_result(*ROWS).model_copy(update={"cached_pairs": 2})
        assert SUPERSET.render(result)["usage"]["cached_pairs"] == 2
        assert "cached_pairs" not in SUPERSET.render(make_result(*ROWS))["usage"]

    def test_rows_without_documents_omit_the_field(self) -> None:
        response = SUPERSET.render(make_result(*ROWS, return_documents=False))
        assert all("document" not in row for row in response["results"] + response["data"])

    def test_only_rows_of_data_have_the_score_under_two_names(self) -> None:
        response = SUPERSET.render(make_result(*ROWS))
        assert [row["score"] for row in response["data"]] == [0.9, 0.25, 0.0]
        assert all("score" not in row for row in response["results"])

    def test_rows_keep_the_order_of_the_ranking(self) -> None:
        response = SUPERSET.render(make_result(*ROWS))
        assert [row["index"] for row in response["results"]] == [row["index"] for row in response["data"]] == [1, 0, 2]

    def test_error_has_the_fields_of_several_client_formats(self) -> None:
        error = InvalidRequest("top_n must be at least 1", param="top_n")
        assert SUPERSET.render_error(error) == {
            "error": {
                "message": "top_n must be at least 1",
                "type": "invalid_request",
                "param": "top_n",
                "code": 400,
            },
            "message": "top_n must be at least 1",
            "detail": "top_n must be at least 1",
        }


def test_stored_documents_render_byte_for_byte_the_same() -> None:
    documents = ["plain", {"text": "ü 日本", "id": 7, "meta": {"a": 1.0, "b": [1e22, -0.0, 0.1], "c": {"d": None}}}]
    request = SUPERSET.parse({"query": "q", "documents": documents})
    stored = encoding.decode_request(encoding.encode_request(request), [encoding.encode_documents(request.documents)])

    def rendered(source: list[Document]) -> bytes:
        rows = [RankedRow(index=index, score=0.5, document=document) for index, document in enumerate(source)]
        return to_json(SUPERSET.render(make_result(*rows)))

    assert rendered(stored.documents) == rendered(request.documents)
