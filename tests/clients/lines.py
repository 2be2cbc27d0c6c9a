"""The line of code that points each client at rerankq, as docs/clients.md lists it; test cases run exactly this text.

`URL` is the service's address (http://127.0.0.1:8000), `KEY` one of its API keys, `MODEL` a name from its models file,
and `...` the caller's other arguments. Imports nothing, so that every environment can load it.
"""

LINES = {
    "cohere, ClientV2": 'cohere.ClientV2(base_url="URL", api_key="KEY")',
    "cohere, Client": 'cohere.Client(base_url="URL", api_key="KEY")',
    "voyageai": 'voyageai.Client(base_url="URL/v1", api_key="KEY")',
    "together": 'together.Together(base_url="URL", api_key="KEY")',
    "pinecone": 'Pinecone(host="URL/pinecone", api_key="KEY")',
    "pinecone, at the root": 'Pinecone(host="URL", api_key="KEY")',
    "mixedbread": 'Mixedbread(base_url="URL", api_key="KEY")',
    "dashscope, Client": 'dashscope.v2.Client(base_url="URL/api/v1", api_key="KEY")',
    "zeroentropy": 'ZeroEntropy(base_url="URL/v1", api_key="KEY")',
    "contextual": 'ContextualAI(base_url="URL/v1", api_key="KEY")',
    "tei_client": 'HttpClient("URL/tei", headers={"Authorization": "Bearer KEY"})',
    "rerankers": 'Reranker("MODEL", model_type="jina", url="URL/v1/rerank", api_key="KEY")',
    "xinference_client": 'RESTfulClient("URL", api_key="KEY")',
    "openai, models": 'openai.OpenAI(base_url="URL/v1", api_key="KEY")',
    "openai, files and batches": 'openai.OpenAI(base_url="URL/v1", api_key="KEY")',
    "openai, AsyncOpenAI": 'openai.AsyncOpenAI(base_url="URL/v1", api_key="KEY")',
    "voyage, batches": 'httpx.Client(base_url="URL/v1", headers={"Authorization": "Bearer KEY"})',
    "runpod, Endpoint": (
        'runpod.endpoint_url_base = "URL/runpod/v2"; endpoint = runpod.Endpoint("MODEL", api_key="KEY")'
    ),
    "runpod, AsyncioEndpoint": (
        'runpod.endpoint_url_base = "URL/runpod/v2"; endpoint = runpod.AsyncioEndpoint("MODEL", session, api_key="KEY")'
    ),
    "infinity_client": 'AuthenticatedClient(base_url="URL", token="KEY", raise_on_unexpected_status=True)',
    "haystack, JinaRanker": 'JinaRanker(base_url="URL/v1/rerank", api_key=Secret.from_token("KEY"), model="MODEL")',
    "haystack, CohereRanker": 'CohereRanker(api_base_url="URL", api_key=Secret.from_token("KEY"), model="MODEL")',
    "haystack, HuggingFaceTEIRanker": 'HuggingFaceTEIRanker(url="URL", token=Secret.from_token("KEY"))',
    "haystack, NvidiaRanker": 'NvidiaRanker(api_url="URL/v1", api_key=Secret.from_token("KEY"), model="MODEL")',
    "langchain, CohereRerank": 'CohereRerank(base_url="URL", cohere_api_key="KEY", model="MODEL")',
    "langchain, JinaRerank": 'jina_rerank.JINA_API_URL = "URL/v1/rerank"',
    "langchain, NVIDIARerank": 'NVIDIARerank(base_url="URL/v1", api_key="KEY", model="MODEL")',
    "langchain, VoyageAIRerank": 'VoyageAIRerank(base_url="URL/voyage/v1", api_key="KEY", model="MODEL")',
    "llama-index, JinaRerank": 'JinaRerank(base_url="URL/v1", api_key="KEY", model="MODEL")',
    "llama-index, CohereRerank": 'CohereRerank(base_url="URL", api_key="KEY", model="MODEL")',
    "llama-index, TextEmbeddingInference": 'TextEmbeddingInference(base_url="URL/tei", auth_token="Bearer KEY")',
    "llama-index, NVIDIARerank": 'NVIDIARerank(base_url="URL/v1", api_key="KEY", model="MODEL")',
    "llama-index, SiliconFlowRerank": 'SiliconFlowRerank(base_url="URL/v1/rerank", api_key="KEY", model="MODEL")',
    "litellm, cohere": 'litellm.rerank("cohere/MODEL", api_base="URL", api_key="KEY", ...)',
    "litellm, jina_ai": 'litellm.rerank("jina_ai/MODEL", api_base="URL", api_key="KEY", ...)',
    "litellm, hosted_vllm": 'litellm.rerank("hosted_vllm/MODEL", api_base="URL", api_key="KEY", ...)',
    "litellm, infinity": 'litellm.rerank("infinity/MODEL", api_base="URL/infinity", api_key="KEY", ...)',
    "litellm, huggingface": 'litellm.rerank("huggingface/MODEL", api_base="URL/tei", api_key="KEY", ...)',
    "litellm, voyage": 'litellm.rerank("voyage/MODEL", api_base="URL/voyage", api_key="KEY", ...)',
    "litellm, together_ai": 'litellm.rerank("together_ai/MODEL", api_base="URL/v1", api_key="KEY", ...)',
    "litellm, nvidia_nim": 'litellm.rerank("nvidia_nim/MODEL", api_base="URL", api_key="KEY", ...)',
    "litellm, dashscope": 'litellm.rerank("dashscope/MODEL", api_base="URL", api_key="KEY", ...)',
    "litellm, fireworks_ai": 'litellm.rerank("fireworks_ai/MODEL", api_base="URL/v1", api_key="KEY", ...)',
    "litellm, azure_ai": 'litellm.rerank("azure_ai/MODEL", api_base="URL", api_key="KEY", ...)',
    "litellm, litellm_proxy": 'litellm.rerank("litellm_proxy/MODEL", api_base="URL", api_key="KEY", ...)',
    "LiteLLM's proxy": 'litellm_params: {model: "hosted_vllm/MODEL", api_base: "URL/v1", api_key: "KEY"}',
}
