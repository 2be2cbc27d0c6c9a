import pytest

from api.dialects.base import Dialect
from api.dialects.cohere import V2_MAX_DOCUMENTS, CohereV1Dialect, CohereV2Dialect
from shared.contracts import Document, RankedRow
from shared.errors import InvalidRequest
from tests.api.dialects.support import BODY, ROWS, parse_error
from tests.api.support import make_result

V1, V2 = CohereV1Dialect(), CohereV2Dialect()
PANDA = {"title": "Giant panda", "text": "A bear.", "year": 1869}


class TestVersionOne:
    def test_text_of_an_object_is_scored_and_the_whole_object_is_returned(self) -> None:
        (document,) = V1.parse(BODY | {"documents": [PANDA]}).documents
        assert document == Document(text="A bear.", fields=PANDA)

    def test_rank_fields_select_the_scored_fields(self) -> None:
        (document,) = V1.parse(BODY | {"documents": [PANDA], "rank_fields": ["title", "year"]}).documents
        assert document == Document(text="title: Giant panda\nyear: 1869\n", fields=PANDA)

    def test_object_without_a_text_is_rejected(self) -> None:
        message = "document text is required for rerank at index 0"
        assert parse_error(V1, BODY | {"documents": [{"title": "x"}]}) == (message, "documents[0].text")

    def test_max_chunks_per_doc_defaults_to_ten(self) -> None:
        assert V1.parse(BODY).max_chunks_per_doc == 10
        assert V1.parse(BODY | {"max_chunks_per_doc": 3}).max_chunks_per_doc == 3
        assert V1.parse(BODY | {"max_chunk_per_doc": 4}).max_chunks_per_doc == 4
        assert V1.parse(BODY | {"max_chunks_per_doc": None}).max_chunks_per_doc == 10

    def test_documents_are_returned_only_on_request(self) -> None:
        assert not V1.parse(BODY).return_documents
        assert V1.parse(BODY | {"return_documents": True}).return_documents

    def test_full_response(self) -> None:
        row = RankedRow(index=2, score=0.1, document=Document(text="A bear.", fields=PANDA))
        assert V1.render(make_result(*ROWS, row)) == {
            "id": "job-1",
            "results": [
                {"index": 1, "relevance_score": 0.9, "document": {"text": "b"}},
                {"index": 0, "relevance_score": 0.0, "document": {"text": ""}},
                {"index": 2, "relevance_score": 0.1, "document": PANDA},
            ],
            "meta": {
                "api_version": {"version": "1"},
                "billed_units": {"search_units": 1},
                "tokens": {"input_tokens": 7, "output_tokens": 0},
            },
        }


class TestVersionTwo:
    def test_documents_are_strings_only(self) -> None:
        assert parse_error(V2, BODY | {"documents": [PANDA]}) == ("documents[0] must be a string", "documents[0]")

    def test_more_than_ten_thousand_documents_are_rejected(self) -> None:
        assert V2.parse(BODY | {"documents": ["t"] * V2_MAX_DOCUMENTS})
        message, param = parse_error(V2, BODY | {"documents": ["t"] * (V2_MAX_DOCUMENTS + 1)})
        assert (message, param) == ("documents: at most 10000 in one request, got 10001", "documents")

    def test_max_tokens_per_doc_defaults_to_4096(self) -> None:
        assert V2.parse(BODY).max_tokens_per_doc == 4096
        assert V2.parse(BODY | {"max_tokens_per_doc": 128}).max_tokens_per_doc == 128
        assert V2.parse(BODY | {"max_tokens_per_doc": None}).max_tokens_per_doc == 4096

    @pytest.mark.parametrize("priority", [0, 999])
    def test_priority_is_accepted(self, priority: int) -> None:
        assert V2.parse(BODY | {"priority": priority}).priority == priority

    def test_full_response_has_no_documents(self) -> None:
        assert V2.render(make_result(*ROWS)) == {
            "id": "job-1",
            "results": [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.0}],
            "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
        }


@pytest.mark.parametrize("dialect", [V1, V2], ids=["v1", "v2"])
def test_errors_have_a_message_and_the_request_id(dialect: Dialect) -> None:
    error = InvalidRequest("query is required for rerank", param="query")
    assert dialect.render_error(error, "request-1") == {"id": "request-1", "message": "query is required for rerank"}
    assert dialect.status_of(error) == 400
