"""Clients of the vendors' own SDKs and haystack, in their newest versions."""

import time
from typing import Any

import cohere
import contextual
import dashscope
import mixedbread
import openai
import together
import voyageai
import zeroentropy
from cohere import errors as cohere_errors
from contextual import ContextualAI
from dashscope.v2 import errors as dashscope_errors
from haystack import Document
from haystack.utils import Secret
from haystack_integrations.components.rankers.cohere import CohereRanker
from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker
from haystack_integrations.components.rankers.jina import JinaRanker
from haystack_integrations.components.rankers.nvidia import NvidiaRanker
from mixedbread import Mixedbread
from pinecone import Pinecone
from pinecone import errors as pinecone_errors
from tei_client import HttpClient
from voyageai import error as voyage_errors
from xinference_client import RESTfulClient
from zeroentropy import ZeroEntropy

from tests.clients import batch_forms, openai_batches, queue_forms
from tests.clients.case import (
    DOCUMENTS,
    QUERY,
    TOP,
    Client,
    Target,
    check_ranked_texts,
    check_ranking,
    evaluate_line,
    question,
)

MANY = 100
JINA_SECONDS = 5.0


def cohere_v2(target: Target) -> str:
    response = evaluate_line("cohere, ClientV2", target, cohere=cohere).rerank(model=target.model, **question())
    return check_ranking([row.index for row in response.results], [row.relevance_score for row in response.results])


def cohere_v1(target: Target) -> str:
    client = evaluate_line("cohere, Client", target, cohere=cohere)
    rows = client.rerank(model=target.model, return_documents=True, **question()).results
    texts = [row.document.text for row in rows]
    return check_ranking([row.index for row in rows], [row.relevance_score for row in rows], texts)


def voyage(target: Target) -> str:
    client = evaluate_line("voyageai", target, voyageai=voyageai)
    response = client.rerank(QUERY, DOCUMENTS, model=target.model, top_k=TOP)
    assert response.total_tokens >= 0
    rows = response.results
    return check_ranking(
        [row.index for row in rows], [row.relevance_score for row in rows], [row.document for row in rows]
    )


def together_sdk(target: Target) -> str:
    client = evaluate_line("together", target, together=together)
    response = client.rerank.create(model=target.model, return_documents=True, **question())
    assert response.usage.total_tokens >= 0
    rows = response.results
    texts = [row.document.text for row in rows]
    return check_ranking([row.index for row in rows], [row.relevance_score for row in rows], texts)


def pinecone_sdk(target: Target) -> str:
    client = evaluate_line("pinecone", target, Pinecone=Pinecone)
    rows = client.inference.rerank(model=target.model, **question()).data
    texts = [row.document["text"] for row in rows]
    return check_ranking([row.index for row in rows], [row.score for row in rows], texts)


def pinecone_at_the_root(target: Target) -> str:
    client = evaluate_line("pinecone, at the root", target, Pinecone=Pinecone)
    response = client.inference.rerank(model=target.model, parameters={"truncate": "END"}, **question())
    assert response.usage.rerank_units >= 0
    return check_ranking([row.index for row in response.data], [row.score for row in response.data])


def mixedbread_sdk(target: Target) -> str:
    client = evaluate_line("mixedbread", target, Mixedbread=Mixedbread)
    response = client.rerank(query=QUERY, input=DOCUMENTS, model=target.model, top_k=TOP, return_input=True)
    assert response.usage.total_tokens >= 0
    rows = response.data
    return check_ranking([row.index for row in rows], [row.score for row in rows], [row.input for row in rows])


def dashscope_sdk(target: Target) -> str:
    client = evaluate_line("dashscope, Client", target, dashscope=dashscope)
    response = client.rerank.create(model=target.model, return_documents=True, **question())
    assert response.usage.total_tokens >= 0
    rows = response.results
    texts = [row.document.text for row in rows]
    return check_ranking([row.index for row in rows], [row.relevance_score for row in rows], texts)


def zeroentropy_sdk(target: Target) -> str:
    client = evaluate_line("zeroentropy", target, ZeroEntropy=ZeroEntropy)
    rows = client.models.rerank(model=target.model, **question()).results
    return check_ranking([row.index for row in rows], [row.relevance_score for row in rows])


def contextual_sdk(target: Target) -> str:
    client = evaluate_line("contextual", target, ContextualAI=ContextualAI)
    rows = client.rerank.create(model=target.model, **question()).results
    return check_ranking([row.index for row in rows], [row.relevance_score for row in rows])


def tei(target: Target) -> str:
    client = evaluate_line("tei_client", target, HttpClient=HttpClient)
    rows = client.rerank(QUERY, DOCUMENTS, return_text=True).ranks[:TOP]
    return check_ranking([row.index for row in rows], [row.score for row in rows], [row.text for row in rows])


def xinference(target: Target) -> str:
    client = evaluate_line("xinference_client", target, RESTfulClient=RESTfulClient)
    rows = client.get_model(target.model).rerank(return_documents=True, **question())["results"]
    texts = [row["document"]["text"] for row in rows]
    return check_ranking([row["index"] for row in rows], [row["relevance_score"] for row in rows], texts)


def openai_models(target: Target) -> str:
    client = evaluate_line("openai, models", target, openai=openai)
    listed = [model.id for model in client.models.list()]
    assert client.models.retrieve(target.model).id in listed
    return f"{len(listed)} model listed"


def haystack_jina(target: Target) -> str:
    ranker = evaluate_line("haystack, JinaRanker", target, JinaRanker=JinaRanker, Secret=Secret)
    response = ranker.run(query=QUERY, documents=_documents(), top_k=TOP)
    assert response["meta"]["model"] == target.model
    assert response["meta"]["usage"]["total_tokens"] >= 0
    return _check_documents(response["documents"])


def haystack_jina_many(target: Target) -> str:
    """This ranker times out after five seconds; no option changes that."""
    ranker = evaluate_line("haystack, JinaRanker", target, JinaRanker=JinaRanker, Secret=Secret)
    passages = [f"Passage {number}: {' '.join(DOCUMENTS)} {'It eats bamboo. ' * 20}" for number in range(MANY)]
    started = time.monotonic()
    response = ranker.run(query=QUERY, documents=[Document(content=text) for text in passages])
    seconds = time.monotonic() - started
    assert len(response["documents"]) == MANY
    assert seconds < JINA_SECONDS
    tokens = response["meta"]["usage"]["total_tokens"]
    return f"{MANY} documents, {tokens} tokens, in {seconds:.2f} s of its {JINA_SECONDS:g}"


def haystack_cohere(target: Target) -> str:
    ranker = evaluate_line("haystack, CohereRanker", target, CohereRanker=CohereRanker, Secret=Secret)
    return _check_documents(ranker.run(query=QUERY, documents=_documents(), top_k=TOP)["documents"])


def haystack_tei(target: Target) -> str:
    ranker = evaluate_line(
        "haystack, HuggingFaceTEIRanker", target, HuggingFaceTEIRanker=HuggingFaceTEIRanker, Secret=Secret
    )
    return _check_documents(ranker.run(query=QUERY, documents=_documents(), top_k=TOP)["documents"])


def haystack_nvidia(target: Target) -> str:
    ranker = evaluate_line("haystack, NvidiaRanker", target, NvidiaRanker=NvidiaRanker, Secret=Secret)
    best = ranker.run(query=QUERY, documents=_documents(), top_k=TOP)["documents"]
    # The scores are raw, so they are not between 0 and 1.
    assert all(isinstance(document.score, float) for document in best)
    return check_ranked_texts([document.content for document in best], [])


def _documents() -> list[Document]:
    return [Document(content=text) for text in DOCUMENTS]


def _check_documents(documents: list[Document]) -> str:
    return check_ranked_texts([document.content for document in documents], [document.score for document in documents])


def _generated(sdk: Any) -> dict[int, type[Exception]]:
    """The exceptions of an SDK generated by Stainless, which have the same names in all such SDKs."""
    return {
        401: sdk.AuthenticationError,
        404: sdk.NotFoundError,
        429: sdk.RateLimitError,
        503: sdk.InternalServerError,
    }


COHERE = {
    401: cohere_errors.UnauthorizedError,
    404: cohere_errors.NotFoundError,
    429: cohere_errors.TooManyRequestsError,
    503: cohere_errors.ServiceUnavailableError,
}
# Voyage's SDK raises APIError for statuses without an exception, for example 404.
VOYAGE = {
    401: voyage_errors.AuthenticationError,
    404: voyage_errors.APIError,
    429: voyage_errors.RateLimitError,
    503: voyage_errors.ServiceUnavailableError,
}
TOGETHER = _generated(together)
OPENAI = _generated(openai)
PINECONE = {
    401: pinecone_errors.UnauthorizedError,
    404: pinecone_errors.NotFoundError,
    429: pinecone_errors.RateLimitError,
    503: pinecone_errors.ServiceError,
}
MIXEDBREAD = _generated(mixedbread)
ZEROENTROPY = _generated(zeroentropy)
CONTEXTUAL = _generated(contextual)
# This client requests the model information first, and ignores the status.
TEI = dict.fromkeys((401, 429, 503), KeyError)
DASHSCOPE = {
    401: dashscope_errors.AuthenticationError,
    404: dashscope_errors.NotFoundError,
    429: dashscope_errors.RateLimitError,
    503: dashscope_errors.ServiceUnavailableError,
}
# haystack and Xinference define no exceptions.
RUNTIME = dict.fromkeys((401, 404, 429, 503), RuntimeError)

CLIENTS = [
    Client("haystack, JinaRanker in its 5 s", "jina-haystack", haystack_jina_many, exclusive=True),
    Client("cohere, ClientV2", "cohere", cohere_v2, COHERE, retries=True),
    Client("cohere, ClientV2", "cohere", cohere_v2, COHERE, retries=True, prefix="/cohere"),
    Client("cohere, Client", "cohere", cohere_v1, COHERE, retries=True),
    Client("cohere, Client", "cohere", cohere_v1, COHERE, retries=True, prefix="/cohere"),
    Client("voyageai", "voyageai", voyage, VOYAGE, drops_message={503}),
    Client("voyageai", "voyageai", voyage, VOYAGE, drops_message={503}, prefix="/voyage"),
    Client("together", "together", together_sdk, TOGETHER, retries=True),
    Client("pinecone", "pinecone", pinecone_sdk, PINECONE, retries=True),
    Client("pinecone, at the root", "pinecone", pinecone_at_the_root, PINECONE, retries=True),
    Client("mixedbread", "mixedbread", mixedbread_sdk, MIXEDBREAD, retries=True),
    Client("mixedbread", "mixedbread", mixedbread_sdk, MIXEDBREAD, retries=True, prefix="/mixedbread"),
    Client("zeroentropy", "zeroentropy", zeroentropy_sdk, ZEROENTROPY, retries=True),
    Client("contextual", "contextual-client", contextual_sdk, CONTEXTUAL, retries=True),
    Client("tei_client", "tei-client", tei, TEI, not_found=None, drops_message=set(TEI)),
    Client("dashscope, Client", "dashscope", dashscope_sdk, DASHSCOPE),
    Client("dashscope, Client", "dashscope", dashscope_sdk, DASHSCOPE, prefix="/dashscope"),
    Client("xinference_client", "xinference-client", xinference, RUNTIME),
    Client("openai, models", "openai", openai_models, OPENAI, retries=True),
    *openai_batches.CLIENTS,
    *batch_forms.CLIENTS,
    *queue_forms.CLIENTS,
    Client("haystack, JinaRanker", "jina-haystack", haystack_jina, RUNTIME),
    Client("haystack, JinaRanker", "jina-haystack", haystack_jina, RUNTIME, prefix="/jina"),
    Client("haystack, CohereRanker", "cohere-haystack", haystack_cohere, COHERE, retries=True),
    Client("haystack, NvidiaRanker", "nvidia-haystack", haystack_nvidia, dict.fromkeys(RUNTIME, ValueError)),
    # This client drops the path of its address, and sends no model.
    Client("haystack, HuggingFaceTEIRanker", "huggingface-api-haystack", haystack_tei, RUNTIME, not_found=None),
]
