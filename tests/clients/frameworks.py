"""litellm, langchain, llama-index and rerankers, and the older SDKs of Cohere and Voyage that they are built on."""

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

from tests.clients.case import (
    DOCUMENTS,
    QUERY,
    TOP,
    Client,
    Target,
    done,
    lead_nowhere,
    made,
    question,
    ranked,
    ranked_texts,
)


def cohere_v2(target: Target) -> str:
    rows = made("cohere, ClientV2", target, cohere=cohere).rerank(model=target.model, **question()).results
    return ranked([row.index for row in rows], [row.relevance_score for row in rows])


def cohere_v1(target: Target) -> str:
    client = made("cohere, Client", target, cohere=cohere)
    rows = client.rerank(model=target.model, return_documents=True, **question()).results
    texts = [row.document.text for row in rows]
    return ranked([row.index for row in rows], [row.relevance_score for row in rows], texts)


def langchain_cohere(target: Target) -> str:
    compressor = made("langchain, CohereRerank", target, CohereRerank=LangchainCohere)
    return _ranked_documents(compressor.compress_documents([Document(text) for text in DOCUMENTS], QUERY))


def langchain_jina(target: Target) -> str:
    done("langchain, JinaRerank", target, jina_rerank=jina_rerank)
    compressor = jina_rerank.JinaRerank(jina_api_key=target.key, model=target.model, top_n=TOP)
    return _ranked_documents(compressor.compress_documents([Document(text) for text in DOCUMENTS], QUERY))


def langchain_nvidia(target: Target) -> str:
    compressor = made("langchain, NVIDIARerank", target, NVIDIARerank=NVIDIARerank)
    best = list(compressor.compress_documents([Document(text) for text in DOCUMENTS], QUERY))[:TOP]
    # They come with the model's own scores.
    assert all(isinstance(document.metadata["relevance_score"], float) for document in best)
    return ranked_texts([document.page_content for document in best], [])


def langchain_voyage(target: Target) -> str:
    compressor = made("langchain, VoyageAIRerank", target, VoyageAIRerank=VoyageAIRerank)
    return _ranked_documents(compressor.compress_documents([Document(text) for text in DOCUMENTS], QUERY))


def _ranked_documents(documents: Iterable[Document]) -> str:
    best = list(documents)[:TOP]
    return ranked_texts([it.page_content for it in best], [it.metadata["relevance_score"] for it in best])


def llama_index_jina(target: Target) -> str:
    return _ranked_nodes(made("llama-index, JinaRerank", target, JinaRerank=JinaRerank))


def llama_index_cohere(target: Target) -> str:
    postprocessor = made("llama-index, CohereRerank", target, CohereRerank=CohereRerank)
    # On top of the SDK's own tries it would try ten times, ten seconds apart.
    postprocessor.max_retries = 1
    return _ranked_nodes(postprocessor)


def llama_index_tei(target: Target) -> str:
    name = "llama-index, TextEmbeddingInference"
    return _ranked_nodes(made(name, target, TextEmbeddingInference=TextEmbeddingInference))


def llama_index_nvidia(target: Target) -> str:
    postprocessor = made("llama-index, NVIDIARerank", target, NVIDIARerank=LlamaIndexNvidia)
    postprocessor.top_n = TOP
    nodes = [NodeWithScore(node=TextNode(text=text), score=0.0) for text in DOCUMENTS]
    best = postprocessor.postprocess_nodes(nodes, query_bundle=QueryBundle(QUERY))
    # They come with the model's own scores.
    assert all(isinstance(node.score, float) for node in best)
    return ranked_texts([node.text for node in best], [])


def llama_index_siliconflow(target: Target) -> str:
    return _ranked_nodes(made("llama-index, SiliconFlowRerank", target, SiliconFlowRerank=SiliconFlowRerank))


def rerankers(target: Target) -> str:
    best = made("rerankers", target, Reranker=Reranker).rank(QUERY, DOCUMENTS).results[:TOP]
    return ranked([row.doc_id for row in best], [row.score for row in best])


def _ranked_nodes(postprocessor: Any) -> str:
    postprocessor.top_n = TOP
    nodes = [NodeWithScore(node=TextNode(text=text), score=0.0) for text in DOCUMENTS]
    best = postprocessor.postprocess_nodes(nodes, query_bundle=QueryBundle(QUERY))
    return ranked_texts([node.text for node in best], [node.score for node in best])


def litellm_as(provider: str, *, documents: bool = True) -> Callable[[Target], str]:
    """`documents`: the service sends them back."""

    def call(target: Target) -> str:
        rows = made(f"litellm, {provider}", target, litellm=litellm).results
        texts = [row["document"]["text"] for row in rows] if documents else None
        return ranked([row["index"] for row in rows], [row["relevance_score"] for row in rows], texts)

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
# Infinity itself says 400 of a model that it does not know.
LITELLM_INFINITY = {status: raised for status, raised in LITELLM.items() if status != 404} | {
    400: litellm.BadRequestError
}
# Of Hugging Face's servers litellm expects no 404.
LITELLM_TEI = LITELLM | {404: litellm.APIError}
# Neither has errors of its own: Jina's two say RuntimeError; TEI's looks at no status, and finds that rows are missing.
JINA = dict.fromkeys((401, 404, 429, 503), RuntimeError)
NVIDIA = dict.fromkeys((401, 404, 429, 503), Exception)
TEI = dict.fromkeys((401, 429, 503), AssertionError)
# llama-index's for NVIDIA asks for the models first, and does not find one itself; rerankers looks at no status.
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
# Where litellm looks for the length of every model that it takes for one of Hugging Face's; no setting keeps it from
# that, and that it is refused here does not trouble it.
STRANGERS = {"huggingface.co"}

CLIENTS = [
    Client("cohere, ClientV2", "cohere", cohere_v2, COHERE, patient=True),
    Client("cohere, Client", "cohere", cohere_v1, COHERE, patient=True),
    Client("langchain, CohereRerank", "langchain-cohere", langchain_cohere, COHERE, patient=True),
    *(Client("langchain, JinaRerank", "langchain-community", langchain_jina, JINA, prefix=it) for it in ("", "/jina")),
    Client("langchain, NVIDIARerank", "langchain-nvidia-ai-endpoints", langchain_nvidia, NVIDIA),
    Client("langchain, NVIDIARerank", "langchain-nvidia-ai-endpoints", langchain_nvidia, NVIDIA, prefix="/nvidia"),
    Client("langchain, VoyageAIRerank", "langchain-voyageai", langchain_voyage, VOYAGE, mute={503}),
    Client("llama-index, JinaRerank", "llama-index-postprocessor-jinaai-rerank", llama_index_jina, JINA),
    Client(
        "llama-index, JinaRerank", "llama-index-postprocessor-jinaai-rerank", llama_index_jina, JINA, prefix="/jina"
    ),
    Client(
        "llama-index, CohereRerank",
        "llama-index-postprocessor-cohere-rerank",
        llama_index_cohere,
        COHERE,
        patient=True,
    ),
    Client(
        "llama-index, TextEmbeddingInference",
        "llama-index-postprocessor-tei-rerank",
        llama_index_tei,
        TEI,
        mistake=None,
        mute=set(TEI),
    ),
    Client(
        "llama-index, NVIDIARerank",
        "llama-index-postprocessor-nvidia-rerank",
        llama_index_nvidia,
        LLAMA_INDEX_NVIDIA,
        mute={401, 429, 503},
    ),
    Client(
        "llama-index, SiliconFlowRerank",
        "llama-index-postprocessor-siliconflow-rerank",
        llama_index_siliconflow,
        JINA,
    ),
    Client("rerankers", "rerankers", rerankers, RERANKERS, mute=set(RERANKERS)),
    *(Client(f"litellm, {provider}", "litellm", litellm_as(provider), LITELLM) for provider in PROVIDERS),
    Client("litellm, fireworks_ai", "litellm", litellm_as("fireworks_ai", documents=False), LITELLM),
    Client("litellm, cohere", "litellm", litellm_as("cohere", documents=False), LITELLM, prefix="/cohere"),
    Client("litellm, hosted_vllm", "litellm", litellm_as("hosted_vllm"), LITELLM, prefix="/vllm"),
    Client("litellm, infinity", "litellm", litellm_as("infinity"), LITELLM_INFINITY),
    # It sends no model.
    Client("litellm, huggingface", "litellm", litellm_as("huggingface"), LITELLM_TEI, mistake=lead_nowhere),
]
