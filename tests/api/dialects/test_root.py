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
def test_the_body_decides_who_is_meant(body: dict[str, Any], name: str) -> None:
    assert ROOT.dialect_for_body(body).name == name


@pytest.mark.parametrize("more", ["texts", "passages", "queries", "items", "data_1", "text_1", "input"])
def test_what_the_superset_can_read_it_answers(more: str) -> None:
    """The rest is an unknown field."""
    assert ROOT.dialect_for_body({"query": "q", "documents": ["t"], more: ["x"]}) is ROOT


@pytest.mark.parametrize("field", ["texts", "passages", "queries", "data_1", "input"])
def test_an_explicit_null_is_an_absent_field(field: str) -> None:
    assert ROOT.dialect_for_body({field: None}) is ROOT
    assert ROOT.dialect_for_body({"query": None, "documents": ["t"], "queries": "q"}).name == "vllm-score"
    assert ROOT.dialect_for_body({"query": "q", "documents": ["t"], "truncation": None}) is ROOT


def test_a_prefix_speaks_one_dialect_alone() -> None:
    for reader in ROOT.readers("/v1/rerank")[1:]:
        assert reader.dialect_for_body({"query": "q", "texts": ["t"], "data_1": "q", "data_2": "t"}) is reader


@pytest.mark.parametrize(
    ("path", "likeliest"),
    [
        ("/v1/rerank", "superset"),
        ("/rerank", "superset"),
        ("/v1/score", "vllm-score"),
        ("/v1/ranking", "nvidia"),
        ("/v1/reranking", "mixedbread"),
        ("/api/v1/services/rerank/text-rerank/text-rerank", "dashscope"),
    ],
)
def test_whose_path_it_is_is_shown_first(path: str, likeliest: str) -> None:
    assert ROOT.readers(path)[0].name == likeliest
    assert {reader.name for reader in ROOT.readers(path)} == {
        *("superset", "tei", "vllm-score", "nvidia", "voyage", "mixedbread", "dashscope")
    }
