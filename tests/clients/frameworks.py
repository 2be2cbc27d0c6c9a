"""Clients of litellm, langchain, llama-index and rerankers, and the older SDKs of Cohere and Voyage that they need."""

from collections.abc import Callable, Iterable
from typing import Any

import cohere
import httpx
import litellm
from cohere import errors as cohere_errors
from langchain_cohere import CohereRerank as LangchainCohere
from langchain_community.document_compressors import jina_rerank
from langchain_core.documents import Document
from langchain_nvidia_ai_endpoints import NVIDIARerank
from langchain_voyageai import VoyageAIRerank
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.postprocessor.cohere_rerank import CohereRerank
from llama_index.postprocessor.jinaai_rerank import JinaRerank
from llama_index.postprocessor.nvidia_rerank import NVIDIARerank as LlamaIndexNvidia
from llama_index.postprocessor.siliconflow_rerank import SiliconFlowRerank
from llama_index.postprocessor.tei_rerank import TextEmbeddingInference
from rerankers import Reranker
from voyageai import error as voyage_errors

from tests.clients import litellm_proxy, openai_batches
from tests.clients.case import (
    DOCUMENTS,
    QUERY,
    TOP,
    Client,
    Target,
    check_ranked_texts,
    check_ranking,
    evaluate_line,
    execute_line,
    question,
    with_unknown_path,
)


def cohere_v2(target: Target) -> str:
    rows = evaluate_line("cohere, ClientV2", target, cohere=cohere).rerank(model=target.model, **question()).results
    return check_ranking([row.index for row in rows], [row.relevance_score for row in rows])


def cohere_v1(target: Target) -> str:
    client = evaluate_line("cohere, Client", target, cohere=cohere)
    rows = client.rerank(model=target.model, return_documents=True, **question()).results
    texts = [row.document.text for row in rows]
    return check_ranking([row.index for row in rows], [row.relevance_score for row in rows], texts)


def langchain_cohere(target: Target) -> str:
    compressor = evaluate_line("langchain, CohereRerank", target, CohereRerank=LangchainCohere)
    return _check_documents(compressor.compress_documents([Document(text) for text in DOCUMENTS], QUERY))


def langchain_jina(target: Target) -> str:
    execute_line("langchain, JinaRerank", target, jina_rerank=jina_rerank)
    compressor = jina_rerank.JinaRerank(jina_api_key=target.key, model=target.model, top_n=TOP)
    return _check_documents(compressor.compress_documents([Document(text) for text in DOCUMENTS], QUERY))


def langchain_nvidia(target: Target) -> str:
    compressor = evaluate_line("langchain, NVIDIARerank", target, NVIDIARerank=NVIDIARerank)
    best = list(compressor.compress_documents([Document(text) for text in DOCUMENTS], QUERY))[:TOP]
    # The scores are raw, so they are not between 0 and 1.
    assert all(isinstance(document.metadata["relevance_score"], float) for document in best)
    return check_ranked_texts([document.page_content for document in best], [])


def langchain_voyage(target: Target) -> str:
    compressor = evaluate_line("langchain, VoyageAIRerank", target, VoyageAIRerank=VoyageAIRerank)
    return _check_documents(compressor.compress_documents([Document(text) for text in DOCUMENTS], QUERY))


def _check_documents(documents: Iterable[Document]) -> str:
    best = list(documents)[:TOP]
    return check_ranked_texts([it.page_content for it in best], [it.metadata["relevance_score"] for it in best])


def llama_index_jina(target: Target) -> str:
    return _check_nodes(evaluate_line("llama-index, JinaRerank", target, JinaRerank=JinaRerank))


def llama_index_cohere(target: Target) -> str:
    postprocessor = evaluate_line("llama-index, CohereRerank", target, CohereRerank=CohereRerank)
    # The default is ten retries, ten seconds apart, in addition to the SDK's own.
    postprocessor.max_retries = 1
    return _check_nodes(postprocessor)


def llama_index_tei(target: Target) -> str:
    name = "llama-index, TextEmbeddingInference"
    return _check_nodes(evaluate_line(name, target, TextEmbeddingInference=TextEmbeddingInference))


def llama_index_nvidia(target: Target) -> str:
    postprocessor = evaluate_line("llama-index, NVIDIARerank", target, NVIDIARerank=LlamaIndexNvidia)
    postprocessor.top_n = TOP
    nodes = [NodeWithScore(node=TextNode(text=text), score=0.0) for text in DOCUMENTS]
    best = postprocessor.postprocess_nodes(nodes, query_bundle=QueryBundle(QUERY))
    # The scores are raw, so they are not between 0 and 1.
    assert all(isinstance(node.score, float) for node in best)
    return check_ranked_texts([node.text for node in best], [])


def llama_index_siliconflow(target: Target) -> str:
    return _check_nodes(evaluate_line("llama-index, SiliconFlowRerank", target, SiliconFlowRerank=SiliconFlowRerank))


def rerankers(target: Target) -> str:
    best = evaluate_line("rerankers", target, Reranker=Reranker).rank(QUERY, DOCUMENTS).results[:TOP]
    return check_ranking([row.doc_id for row in best], [row.score for row in best])


def _check_nodes(postprocessor: Any) -> str:
    postprocessor.top_n = TOP
    nodes = [NodeWithScore(node=TextNode(text=text), score=0.0) for text in DOCUMENTS]
    best = postprocessor.postprocess_nodes(nodes, query_bundle=QueryBundle(QUERY))
    return check_ranked_texts([node.text for node in best], [node.score for node in best])


def litellm_as(provider: str, *, documents: bool = True) -> Callable[[Target], str]:
    """`documents`: whether the response contains the documents."""

    def call(target: Target) -> str:
        rows = evaluate_line(f"litellm, {provider}", target, litellm=litellm).results
        texts = [row["document"]["text"] for row in rows] if documents else None
        return check_ranking([row["index"] for row in rows], [row["relevance_score"] for row in rows], texts)

    return call


COHERE = {
    401: cohere_errors.UnauthorizedError,
    404: cohere_errors.NotFoundError,
    429: cohere_errors.TooManyRequestsError,
    503: cohere_errors.ServiceUnavailableError,
}
LITELLM = {
    401: litellm.AuthenticationError,
    404: litellm.NotFoundError,
    429: litellm.RateLimitError,
    503: litellm.ServiceUnavailableError,
}
# Infinity returns 400 for an unknown model.
LITELLM_INFINITY = {status: raised for status, raised in LITELLM.items() if status != 404} | {
    400: litellm.BadRequestError
}
# litellm has no exception for a 404 of a Hugging Face server.
LITELLM_TEI = LITELLM | {404: litellm.APIError}
# These clients define no exceptions. Both of Jina's raise RuntimeError. TEI's ignores the status, so that the check of
# the ranking fails.
JINA = dict.fromkeys((401, 404, 429, 503), RuntimeError)
NVIDIA = dict.fromkeys((401, 404, 429, 503), Exception)
TEI = dict.fromkeys((401, 429, 503), AssertionError)
# llama-index's NVIDIA client lists the models first, and raises ValueError for an unknown one. rerankers ignores the
# status.
LLAMA_INDEX_NVIDIA = {404: ValueError} | dict.fromkeys((401, 429, 503), httpx.HTTPStatusError)
RERANKERS = dict.fromkeys((401, 404, 429, 503), KeyError)
VOYAGE = {
    401: voyage_errors.AuthenticationError,
    404: voyage_errors.APIError,
    429: voyage_errors.RateLimitError,
    503: voyage_errors.ServiceUnavailableError,
}


PROVIDERS = (
    *("cohere", "jina_ai", "hosted_vllm", "voyage", "together_ai"),
    *("nvidia_nim", "dashscope", "azure_ai", "litellm_proxy"),
)
# litellm reads the length of every Hugging Face model from there. No setting prevents it, and it works without.
EXPECTED_BLOCKED_HOSTS = {"huggingface.co"}

CLIENTS = [
    Client("cohere, ClientV2", "cohere", cohere_v2, COHERE, retries=True),
    Client("cohere, Client", "cohere", cohere_v1, COHERE, retries=True),
    Client("langchain, CohereRerank", "langchain-cohere", langchain_cohere, COHERE, retries=True),
    *(Client("langchain, JinaRerank", "langchain-community", langchain_jina, JINA, prefix=it) for it in ("", "/jina")),
    Client("langchain, NVIDIARerank", "langchain-nvidia-ai-endpoints", langchain_nvidia, NVIDIA),
    Client("langchain, NVIDIARerank", "langchain-nvidia-ai-endpoints", langchain_nvidia, NVIDIA, prefix="/nvidia"),
    Client("langchain, VoyageAIRerank", "langchain-voyageai", langchain_voyage, VOYAGE, drops_message={503}),
    Client("llama-index, JinaRerank", "llama-index-postprocessor-jinaai-rerank", llama_index_jina, JINA),
    Client(
        "llama-index, JinaRerank", "llama-index-postprocessor-jinaai-rerank", llama_index_jina, JINA, prefix="/jina"
    ),
    Client(
        "llama-index, CohereRerank",
        "llama-index-postprocessor-cohere-rerank",
        llama_index_cohere,
        COHERE,
        retries=True,
    ),
    Client(
        "llama-index, TextEmbeddingInference",
        "llama-index-postprocessor-tei-rerank",
        llama_index_tei,
        TEI,
        not_found=None,
        drops_message=set(TEI),
    ),
    Client(
        "llama-index, NVIDIARerank",
        "llama-index-postprocessor-nvidia-rerank",
        llama_index_nvidia,
        LLAMA_INDEX_NVIDIA,
        drops_message={401, 429, 503},
    ),
    Client(
        "llama-index, SiliconFlowRerank",
        "llama-index-postprocessor-siliconflow-rerank",
        llama_index_siliconflow,
        JINA,
    ),
    Client("rerankers", "rerankers", rerankers, RERANKERS, drops_message=set(RERANKERS)),
    *(Client(f"litellm, {provider}", "litellm", litellm_as(provider), LITELLM) for provider in PROVIDERS),
    Client("litellm, fireworks_ai", "litellm", litellm_as("fireworks_ai", documents=False), LITELLM),
    Client("litellm, cohere", "litellm", litellm_as("cohere", documents=False), LITELLM, prefix="/cohere"),
    Client("litellm, hosted_vllm", "litellm", litellm_as("hosted_vllm"), LITELLM, prefix="/vllm"),
    Client("litellm, infinity", "litellm", litellm_as("infinity"), LITELLM_INFINITY),
    # This client sends no model.
    Client("litellm, huggingface", "litellm", litellm_as("huggingface"), LITELLM_TEI, not_found=with_unknown_path),
    *litellm_proxy.CLIENTS,
    # An older version than in the other set.
    Client("openai, batches", "openai", openai_batches.batches),
]
