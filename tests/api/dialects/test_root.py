from typing import Any

import pytest

from api.dialects.root import RootDialect

ROOT = RootDialect()


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"query": "q", "documents": ["t"]}, "superset"),
        ({"query": "q", "documents": []}, "superset"),
        ({"query": "q", "texts": ["t"]}, "tei"),
        ({"texts": ["t"]}, "tei"),
        ({"texts": []}, "tei"),
        ({"query": {"text": "q"}, "passages": [{"text": "t"}]}, "nvidia"),
        ({"queries": "q", "documents": ["t"]}, "vllm-score"),
        ({"queries": ["q"], "items": ["t"]}, "vllm-score"),
        ({"data_1": "q", "data_2": "t"}, "vllm-score"),
        ({"text_1": "q", "text_2": "t"}, "vllm-score"),
        ({"data_1": "q"}, "vllm-score"),
        ({"query": "q", "documents": ["t"], "truncation": False}, "voyage"),
        ({"documents": ["t"], "truncation": True}, "superset"),
        ({"query": "q", "input": ["t"]}, "mixedbread"),
        ({"query": "q", "input": []}, "mixedbread"),
        ({"input": {"query": "q", "documents": ["t"]}}, "dashscope"),
        ({}, "superset"),
        ({"query": "q"}, "superset"),
        ({"documents": ["t"]}, "superset"),
        ({"items": ["t"]}, "superset"),
    ],
)
def test_body_selects_the_dialect(body: dict[str, Any], name: str) -> None:
    assert ROOT.dialect_for_body(body).name == name


@pytest.mark.parametrize("other", ["texts", "passages", "queries", "items", "data_1", "text_1", "input"])
def test_superset_parses_every_body_with_query_and_documents(other: str) -> None:
    """The other field is ignored as unknown."""
    assert ROOT.dialect_for_body({"query": "q", "documents": ["t"], other: ["x"]}) is ROOT


@pytest.mark.parametrize("field", ["texts", "passages", "queries", "data_1", "input"])
def test_null_is_the_same_as_a_missing_field(field: str) -> None:
    assert ROOT.dialect_for_body({field: None}) is ROOT
    assert ROOT.dialect_for_body({"query": None, "documents": ["t"], "queries": "q"}).name == "vllm-score"
    assert ROOT.dialect_for_body({"query": "q", "documents": ["t"], "truncation": None}) is ROOT


def test_dialect_below_a_prefix_ignores_the_body() -> None:
    for reader in ROOT.readers("/v1/rerank")[1:]:
        assert reader.dialect_for_body({"query": "q", "texts": ["t"], "data_1": "q", "data_2": "t"}) is reader


@pytest.mark.parametrize(
    ("path", "first"),
    [
        ("/v1/rerank", "superset"),
        ("/rerank", "superset"),
        ("/v1/score", "vllm-score"),
        ("/v1/ranking", "nvidia"),
        ("/v1/reranking", "mixedbread"),
        ("/api/v1/services/rerank/text-rerank/text-rerank", "dashscope"),
    ],
)
def test_owner_of_the_path_is_the_first_reader(path: str, first: str) -> None:
    assert ROOT.readers(path)[0].name == first
    assert {reader.name for reader in ROOT.readers(path)} == {
        *("superset", "tei", "vllm-score", "nvidia", "voyage", "mixedbread", "dashscope")
    }
