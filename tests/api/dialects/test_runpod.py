"""The input and output of RunPod's infinity worker."""

from typing import Any

import pytest

from api.dialects.registry import FAMILIES, RUNPOD, dialect_by_name, dialect_for_path
from api.dialects.runpod import RunpodDialect
from shared.contracts import Document, RankedRow
from shared.errors import InvalidRequest, Unauthorized
from tests.api.dialects.test_every_dialect import assert_matches
from tests.api.support import make_result

DIALECT = RunpodDialect()
BODY: dict[str, Any] = {"query": "q", "docs": ["a", "b"]}


def test_docs_are_the_documents() -> None:
    request = DIALECT.parse(BODY)
    assert [document.text for document in request.documents] == ["a", "b"]
    assert not request.return_documents
    assert DIALECT.parse(BODY | {"return_docs": True}).return_documents


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"query": " "}, "query"),
        ({"docs": []}, "docs"),
        ({"docs": "a"}, "docs"),
        ({"docs": ["a", {"text": "b"}]}, "docs[1]"),
        ({"return_docs": "maybe"}, "return_docs"),
        ({"model": 3}, "model"),
    ],
)
def test_error_names_the_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        DIALECT.parse(BODY | fields)
    assert raised.value.param == param


@pytest.mark.parametrize("return_documents", [False, True])
def test_rows_are_in_the_order_of_the_input(return_documents: bool) -> None:
    ranked = [RankedRow(index=index, score=index / 4, document=Document(text=f"text {index}")) for index in (2, 0, 1)]
    output = DIALECT.render(make_result(*ranked, return_documents=return_documents))
    assert [row["index"] for row in output["results"]] == [0, 1, 2]
    assert output["results"][2]["relevance_score"] == 0.5
    assert output["results"][1].get("document") == ("text 1" if return_documents else None)
    assert_matches(DIALECT.answer_models[0], output)


def test_error_has_no_status_of_a_job() -> None:
    """RunPod's SDK for asyncio reads `status` from every body, and polls on unless it is a final one."""
    body = DIALECT.render_error(InvalidRequest("input is required", param="input"))
    assert body == {"error": "input is required", "type": "invalid_request", "param": "input"}
    assert_matches(DIALECT.error_model, body)
    assert DIALECT.status_of(Unauthorized("no key")) == 401


def test_it_renders_the_errors_below_its_prefix_and_its_jobs() -> None:
    for path in ("/runpod/v2/org/model/run", "/runpod/nowhere"):
        assert isinstance(dialect_for_path(path), RunpodDialect)
    assert isinstance(dialect_by_name("runpod"), RunpodDialect)
    assert RUNPOD not in FAMILIES
