import pytest

from api.dialects.base import Dialect
from api.dialects.cohere import V2_MAX_DOCUMENTS, CohereV1Dialect, CohereV2Dialect
from shared.contracts import Document, RankedRow
from shared.errors import InvalidRequest
from tests.api.dialects.support import BODY, ROWS, refusal
from tests.api.support import make_result

V1, V2 = CohereV1Dialect(), CohereV2Dialect()
PANDA = {"title": "Giant panda", "text": "A bear.", "year": 1869}


class TestVersionOne:
    def test_an_object_is_scored_by_its_text_and_comes_back_whole(self) -> None:
        (document,) = V1.parse(BODY | {"documents": [PANDA]}).documents
        assert document == Document(text="A bear.", fields=PANDA)

    def test_rank_fields_pick_what_is_scored(self) -> None:
        (document,) = V1.parse(BODY | {"documents": [PANDA], "rank_fields": ["title", "year"]}).documents
        assert document == Document(text="title: Giant panda\nyear: 1869\n", fields=PANDA)

    def test_an_object_without_a_text_is_refused(self) -> None:
        message = "document text is required for rerank at index 0"
        assert refusal(V1, BODY | {"documents": [{"title": "x"}]}) == (message, "documents[0].text")

    def test_a_long_document_is_cut_into_ten_windows_unless_the_caller_says_otherwise(self) -> None:
        assert V1.parse(BODY).max_chunks_per_doc == 10
        assert V1.parse(BODY | {"max_chunks_per_doc": 3}).max_chunks_per_doc == 3
        assert V1.parse(BODY | {"max_chunk_per_doc": 4}).max_chunks_per_doc == 4
        assert V1.parse(BODY | {"max_chunks_per_doc": None}).max_chunks_per_doc == 10

    def test_documents_are_returned_only_when_the_caller_says_so(self) -> None:
        assert not V1.parse(BODY).return_documents
        assert V1.parse(BODY | {"return_documents": True}).return_documents

    def test_the_whole_answer(self) -> None:
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
        assert refusal(V2, BODY | {"documents": [PANDA]}) == ("documents[0] must be a string", "documents[0]")

    def test_more_than_ten_thousand_are_refused(self) -> None:
        assert V2.parse(BODY | {"documents": ["t"] * V2_MAX_DOCUMENTS})
        message, param = refusal(V2, BODY | {"documents": ["t"] * (V2_MAX_DOCUMENTS + 1)})
        assert (message, param) == ("documents: at most 10000 in one request, got 10001", "documents")

    def test_a_document_is_read_to_its_4096th_token_unless_the_caller_says_otherwise(self) -> None:
        assert V2.parse(BODY).max_tokens_per_doc == 4096
        assert V2.parse(BODY | {"max_tokens_per_doc": 128}).max_tokens_per_doc == 128
        assert V2.parse(BODY | {"max_tokens_per_doc": None}).max_tokens_per_doc == 4096

    @pytest.mark.parametrize("priority", [0, 999])
    def test_a_priority_is_taken(self, priority: int) -> None:
        assert V2.parse(BODY | {"priority": priority}).priority == priority

    def test_the_whole_answer_never_has_a_document(self) -> None:
        assert V2.render(make_result(*ROWS)) == {
            "id": "job-1",
            "results": [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.0}],
            "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
        }


@pytest.mark.parametrize("dialect", [V1, V2], ids=["v1", "v2"])
def test_errors_are_a_message_and_the_requests_id(dialect: Dialect) -> None:
    error = InvalidRequest("query is required for rerank", param="query")
    assert dialect.render_error(error, "request-1") == {"id": "request-1", "message": "query is required for rerank"}
    assert dialect.status_of(error) == 400
