"""Products that these tests cannot install: the request that each sends, and the fields of the response that it reads.

Both are taken from the products' sources. `tests/clients` runs the libraries that can be installed.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import httpx
import pytest

QUERY = "What is a panda?"
DOCUMENTS = ["hi", "it is a bear", "The giant panda is a bear species endemic to China."]
REQUEST: dict[str, Any] = {"query": QUERY, "documents": DOCUMENTS}
DASHSCOPE = "/api/v1/services/rerank/text-rerank/text-rerank"
PASSAGES = {"query": {"text": QUERY}, "passages": [{"text": text} for text in DOCUMENTS]}

Scores = dict[int, float]


class Product(NamedTuple):
    """`read_scores` returns the documents' scores as the product reads them, in the order in which it ranks them."""

    name: str
    path: str
    body: dict[str, Any]
    read_scores: Callable[[Any], Scores]
    headers: Mapping[str, str] = MappingProxyType({})


def scores_in_results(body: Any) -> Scores:
    return {row["index"]: row["relevance_score"] for row in body["results"]}


def scores_in_data(body: Any) -> Scores:
    return {row["index"]: row["relevance_score"] for row in body["data"]}


def scores_in_list(body: Any) -> Scores:
    return {row["index"]: row["score"] for row in body}


def scores_in_rankings(body: Any) -> Scores:
    return {row["index"]: row["logit"] for row in body["rankings"]}


def scores_in_output(body: Any) -> Scores:
    return scores_in_results(body["output"])


def scores_of_open_webui(body: Any) -> Scores:
    """Open WebUI sorts by index, and expects a row for every document."""
    in_order = sorted(body["results"], key=lambda row: row["index"])
    return _best_first({index: row["relevance_score"] for index, row in enumerate(in_order)})


def scores_of_fastgpt(body: Any) -> Scores:
    assert body["id"]
    assert body["meta"]["tokens"]["input_tokens"] >= 0
    return scores_in_results(body)


def scores_of_ragflow(body: Any) -> Scores:
    tokens = body["meta"]["tokens"]
    assert tokens["input_tokens"] + tokens["output_tokens"] == body["usage"]["total_tokens"]
    return scores_in_results(body)


def scores_of_librechat(body: Any) -> Scores:
    assert [row["document"]["text"] for row in body["results"]] == [DOCUMENTS[i] for i in scores_in_results(body)]
    return scores_in_results(body)


def scores_of_milvus(body: Any) -> Scores:
    assert isinstance(body["usage"]["total_tokens"], int)
    return scores_in_results(body)


def scores_of_elasticsearch(body: Any) -> Scores:
    """Elasticsearch rejects a row with an unknown field."""
    for row in body["results"]:
        assert row.keys() <= {"index", "relevance_score", "document"}
    return scores_in_results(body)


def scores_of_weaviate(body: Any) -> Scores:
    """Weaviate assigns the scores to the documents by position."""
    assert [score["document"] for score in body["scores"]] == DOCUMENTS
    return _best_first({index: score["score"] for index, score in enumerate(body["scores"])})


def _best_first(scores: Scores) -> Scores:
    return dict(sorted(scores.items(), key=lambda pair: -pair[1]))


PRODUCTS = [
    Product("Open WebUI", "/v1/rerank", REQUEST | {"model": "all-MiniLM-L6-v2", "top_n": 3}, scores_of_open_webui),
    Product("FastGPT", "/v1/rerank", REQUEST | {"model": "all-MiniLM-L6-v2"}, scores_of_fastgpt),
    Product("Dify, OpenAI-compatible", "/v1/rerank", REQUEST | {"top_n": 3}, scores_in_results, {"Authorization": ""}),
    Product(
        "RAGFlow, Xinference",
        "/rerank",
        REQUEST | {"return_documents": "true", "return_len": "true"},
        scores_of_ragflow,
    ),
    Product(
        "RAGFlow, SiliconFlow",
        "/v1/rerank",
        REQUEST | {"top_n": 3, "return_documents": False, "max_chunks_per_doc": 1024, "overlap_tokens": 80},
        scores_of_ragflow,
    ),
    Product("LibreChat, Jina", "/v1/rerank", REQUEST | {"top_n": 3, "return_documents": True}, scores_of_librechat),
    Product("LightRAG, cohere", "/v2/rerank", REQUEST | {"top_n": 3}, scores_in_results),
    Product("LightRAG, jina", "/jina/v1/rerank", REQUEST | {"top_n": 3, "return_documents": False}, scores_in_results),
    Product(
        "LightRAG, aliyun", DASHSCOPE, {"input": REQUEST, "parameters": {"return_documents": False}}, scores_in_output
    ),
    Product("Continue, OpenAI-compatible", "/v1/rerank", REQUEST, scores_in_data),
    Product(
        "Continue, TEI",
        "/rerank",
        {
            "query": QUERY,
            "texts": DOCUMENTS,
            "return_text": False,
            "raw_scores": False,
            "truncation_direction": "Right",
        },
        scores_in_list,
    ),
    Product("Milvus, vLLM", "/rerank", REQUEST, scores_of_milvus),
    Product("Milvus, TEI", "/rerank", {"query": QUERY, "texts": DOCUMENTS, "truncate": True}, scores_in_list),
    Product("OpenSearch, Cohere's connector", "/v1/rerank", REQUEST | {"top_n": 3}, scores_in_results),
    Product(
        "Elasticsearch, jinaai",
        "/jina/v1/rerank",
        REQUEST | {"top_n": 3, "return_documents": True},
        scores_of_elasticsearch,
    ),
    Product(
        "Elasticsearch, cohere", "/cohere/v1/rerank", REQUEST | {"return_documents": True}, scores_of_elasticsearch
    ),
    Product("LangChain4j, Jina", "/v1/rerank", REQUEST | {"return_documents": False}, scores_in_results),
    Product("LangChain4j, Voyage", "/v1/rerank", REQUEST | {"top_k": None, "truncation": None}, scores_in_data),
    Product("Weaviate, transformers", "/weaviate/rerank", REQUEST | {"property": ""}, scores_of_weaviate),
    Product("Weaviate, NVIDIA", "/v1/retrieval/nvidia/reranking", PASSAGES, scores_in_rankings),
    Product("Weaviate, Voyage", "/voyage/v1/rerank", REQUEST | {"return_documents": False}, scores_in_data),
]


@pytest.mark.parametrize("product", PRODUCTS, ids=lambda product: product.name)
def test_product_finds_the_scores_in_the_response(client: httpx.Client, product: Product) -> None:
    response = client.post(product.path, json=product.body, headers=product.headers)
    assert response.status_code == 200, response.text
    scores = product.read_scores(response.json())
    assert list(scores) == [2, 1, 0]
    assert list(scores.values()) == sorted(scores.values(), reverse=True)


def test_weaviate_finds_its_readiness_and_metadata_paths(client: httpx.Client) -> None:
    assert client.get("/weaviate/.well-known/ready").status_code == 200
    assert client.get("/weaviate/meta").json()["data"][0]["id"] == "all-MiniLM-L6-v2"


def test_continue_and_dify_find_a_reranker_at_info(client: httpx.Client) -> None:
    assert "reranker" in client.get("/info").json()["model_type"]
