"""Products that no library of ours can stand for: what each sends, and what it reads of the answer.

Found in their sources; `tests/clients` has those that can be installed and run as they are.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import httpx
import pytest

QUERY = "What is a panda?"
DOCUMENTS = ["hi", "it is a bear", "The giant panda is a bear species endemic to China."]
ASKED: dict[str, Any] = {"query": QUERY, "documents": DOCUMENTS}
DASHSCOPE = "/api/v1/services/rerank/text-rerank/text-rerank"
PASSAGES = {"query": {"text": QUERY}, "passages": [{"text": text} for text in DOCUMENTS]}

Scores = dict[int, float]


class Product(NamedTuple):
    """`reads` finds each document's score, as the product does; the first one is the one that it takes for the best."""

    name: str
    path: str
    body: dict[str, Any]
    reads: Callable[[Any], Scores]
    headers: Mapping[str, str] = MappingProxyType({})


def of_results(answer: Any) -> Scores:
    return {row["index"]: row["relevance_score"] for row in answer["results"]}


def of_data(answer: Any) -> Scores:
    return {row["index"]: row["relevance_score"] for row in answer["data"]}


def of_ranks(answer: Any) -> Scores:
    return {row["index"]: row["score"] for row in answer}


def of_rankings(answer: Any) -> Scores:
    return {row["index"]: row["logit"] for row in answer["rankings"]}


def of_output(answer: Any) -> Scores:
    return of_results(answer["output"])


def of_open_webui(answer: Any) -> Scores:
    """It sorts by index, and supposes that no document is left out."""
    in_order = sorted(answer["results"], key=lambda row: row["index"])
    return _best_first({place: row["relevance_score"] for place, row in enumerate(in_order)})


def of_fastgpt(answer: Any) -> Scores:
    assert answer["id"]
    assert answer["meta"]["tokens"]["input_tokens"] >= 0
    return of_results(answer)


def of_ragflow(answer: Any) -> Scores:
    tokens = answer["meta"]["tokens"]
    assert tokens["input_tokens"] + tokens["output_tokens"] == answer["usage"]["total_tokens"]
    return of_results(answer)


def of_librechat(answer: Any) -> Scores:
    assert [row["document"]["text"] for row in answer["results"]] == [DOCUMENTS[i] for i in of_results(answer)]
    return of_results(answer)


def of_milvus(answer: Any) -> Scores:
    assert isinstance(answer["usage"]["total_tokens"], int)
    return of_results(answer)


def of_elasticsearch(answer: Any) -> Scores:
    """An unknown field in a row is an error to it."""
    for row in answer["results"]:
        assert row.keys() <= {"index", "relevance_score", "document"}
    return of_results(answer)


def of_weaviate(answer: Any) -> Scores:
    """It looks at places alone."""
    assert [score["document"] for score in answer["scores"]] == DOCUMENTS
    return _best_first({place: score["score"] for place, score in enumerate(answer["scores"])})


def _best_first(scores: Scores) -> Scores:
    return dict(sorted(scores.items(), key=lambda pair: -pair[1]))


PRODUCTS = [
    Product("Open WebUI", "/v1/rerank", ASKED | {"model": "all-MiniLM-L6-v2", "top_n": 3}, of_open_webui),
    Product("FastGPT", "/v1/rerank", ASKED | {"model": "all-MiniLM-L6-v2"}, of_fastgpt),
    Product("Dify, OpenAI-compatible", "/v1/rerank", ASKED | {"top_n": 3}, of_results, {"Authorization": ""}),
    Product("RAGFlow, Xinference", "/rerank", ASKED | {"return_documents": "true", "return_len": "true"}, of_ragflow),
    Product(
        "RAGFlow, SiliconFlow",
        "/v1/rerank",
        ASKED | {"top_n": 3, "return_documents": False, "max_chunks_per_doc": 1024, "overlap_tokens": 80},
        of_ragflow,
    ),
    Product("LibreChat, Jina", "/v1/rerank", ASKED | {"top_n": 3, "return_documents": True}, of_librechat),
    Product("LightRAG, cohere", "/v2/rerank", ASKED | {"top_n": 3}, of_results),
    Product("LightRAG, jina", "/jina/v1/rerank", ASKED | {"top_n": 3, "return_documents": False}, of_results),
    Product("LightRAG, aliyun", DASHSCOPE, {"input": ASKED, "parameters": {"return_documents": False}}, of_output),
    Product("Continue, OpenAI-compatible", "/v1/rerank", ASKED, of_data),
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
        of_ranks,
    ),
    Product("Milvus, vLLM", "/rerank", ASKED, of_milvus),
    Product("Milvus, TEI", "/rerank", {"query": QUERY, "texts": DOCUMENTS, "truncate": True}, of_ranks),
    Product("OpenSearch, Cohere's connector", "/v1/rerank", ASKED | {"top_n": 3}, of_results),
    Product(
        "Elasticsearch, jinaai", "/jina/v1/rerank", ASKED | {"top_n": 3, "return_documents": True}, of_elasticsearch
    ),
    Product("Elasticsearch, cohere", "/cohere/v1/rerank", ASKED | {"return_documents": True}, of_elasticsearch),
    Product("LangChain4j, Jina", "/v1/rerank", ASKED | {"return_documents": False}, of_results),
    Product("LangChain4j, Voyage", "/v1/rerank", ASKED | {"top_k": None, "truncation": None}, of_data),
    Product("Weaviate, transformers", "/weaviate/rerank", ASKED | {"property": ""}, of_weaviate),
    Product("Weaviate, NVIDIA", "/v1/retrieval/nvidia/reranking", PASSAGES, of_rankings),
    Product("Weaviate, Voyage", "/voyage/v1/rerank", ASKED | {"return_documents": False}, of_data),
]


@pytest.mark.parametrize("product", PRODUCTS, ids=lambda product: product.name)
def test_a_product_finds_what_it_reads(client: httpx.Client, product: Product) -> None:
    answer = client.post(product.path, json=product.body, headers=product.headers)
    assert answer.status_code == 200, answer.text
    scores = product.reads(answer.json())
    assert list(scores) == [2, 1, 0]
    assert list(scores.values()) == sorted(scores.values(), reverse=True)


def test_weaviate_waits_until_it_is_ready_and_asks_what_is_served(client: httpx.Client) -> None:
    assert client.get("/weaviate/.well-known/ready").status_code == 200
    assert client.get("/weaviate/meta").json()["data"][0]["id"] == "all-MiniLM-L6-v2"


def test_continue_and_dify_find_a_reranker_behind_info(client: httpx.Client) -> None:
    assert "reranker" in client.get("/info").json()["model_type"]
