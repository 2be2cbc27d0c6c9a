"""Maps paths to dialects: every family under its own prefix, and one of them at the root as well."""

from collections.abc import Iterator
from dataclasses import dataclass

from api.dialects.base import Dialect
from api.dialects.bifrost import BifrostDialect
from api.dialects.cohere import CohereV1Dialect, CohereV2Dialect
from api.dialects.dashscope import DashscopeDialect
from api.dialects.gpustack import GpustackDialect
from api.dialects.infinity import InfinityDialect, NebulDialect
from api.dialects.jina import JinaDialect
from api.dialects.mixedbread import MixedbreadDialect
from api.dialects.nvidia import NvidiaDialect
from api.dialects.pinecone import PineconeDialect
from api.dialects.replicate import ReplicateDialect
from api.dialects.root import RootDialect
from api.dialects.runpod import RunpodDialect
from api.dialects.tei import TeiDialect
from api.dialects.vllm import VllmRerankDialect
from api.dialects.vllm_score import VllmScoreDialect
from api.dialects.voyage import VoyageDialect
from api.dialects.weaviate import WeaviateDialect


@dataclass(frozen=True, slots=True)
class Family:
    """The dialects of one system; `name` is their prefix, and the first one renders the errors of other paths.

    `about` addresses users of that system's clients. `models`, `health` and `info` are paths where its clients
    look for what is served, and for a sign of life.
    """

    name: str
    about: str
    dialects: tuple[Dialect, ...]
    models: tuple[str, ...] = ()
    health: tuple[str, ...] = ()
    info: tuple[str, ...] = ()

    def dialect_at(self, path: str) -> Dialect:
        """The dialect that renders the errors of a path, given without the prefix."""
        for dialect in self.dialects:
            if path in (*dialect.paths, *dialect.aliases):
                return dialect
        return self.dialects[0]


SUPERSET = Family(
    "superset",
    "One answer that nearly every client reads. Bodies of TEI (`texts`), of vLLM's score API (two sides), of NVIDIA "
    "(`passages`), of Voyage (`truncation`), of Mixedbread and DashScope (`input`) are answered as these systems do.",
    (RootDialect(),),
)
FAMILIES: tuple[Family, ...] = (
    SUPERSET,
    Family("jina", "Jina's API: the client's URL is `http://HOST/jina/v1/rerank`.", (JinaDialect(),)),
    Family(
        "cohere",
        "Cohere's API, versions 1 and 2: `cohere.ClientV2(base_url='http://HOST/cohere')`.",
        (CohereV1Dialect(), CohereV2Dialect()),
    ),
    Family(
        "tei",
        "Text Embeddings Inference: the client's base URL is `http://HOST/tei`.",
        (TeiDialect(),),
        health=("/health",),
        info=("/info",),
    ),
    Family(
        "vllm",
        "vLLM's rerank and score APIs: the client's base URL is `http://HOST/vllm`.",
        (VllmRerankDialect(), VllmScoreDialect()),
        models=("/v1/models",),
        health=("/health",),
    ),
    Family(
        "infinity",
        "Infinity: the client's base URL is `http://HOST/infinity`.",
        (InfinityDialect(),),
        models=("/models", "/v1/models"),
        health=("/health",),
    ),
    Family(
        "nebul",
        "Nebul, which speaks Infinity's schema: the client's base URL is `http://HOST/nebul/v1`.",
        (NebulDialect(),),
        models=("/v1/models",),
    ),
    Family(
        "gpustack",
        "GPUStack, with the model's own scores: the client's base URL is `http://HOST/gpustack/v1`.",
        (GpustackDialect(),),
        models=("/v1/models",),
    ),
    Family(
        "bifrost",
        "Bifrost, with `provider/model` names and `fallbacks`: the client's base URL is `http://HOST/bifrost`.",
        (BifrostDialect(),),
        models=("/v1/models",),
    ),
    Family("voyage", "Voyage: `voyageai.Client(base_url='http://HOST/voyage/v1')`.", (VoyageDialect(),)),
    Family(
        "nvidia",
        "NVIDIA's ranking API: `NVIDIARerank(base_url='http://HOST/nvidia/v1')`.",
        (NvidiaDialect(),),
        models=("/v1/models",),
        health=("/v1/health/ready", "/v1/health/live"),
    ),
    Family(
        "pinecone",
        "Pinecone's inference API: `Pinecone(api_key=..., host='http://HOST/pinecone')`.",
        (PineconeDialect(),),
    ),
    Family("mixedbread", "Mixedbread: `Mixedbread(base_url='http://HOST/mixedbread')`.", (MixedbreadDialect(),)),
    Family(
        "dashscope",
        "DashScope's native API: `dashscope.base_http_api_url = 'http://HOST/dashscope/api/v1'`.",
        (DashscopeDialect(),),
    ),
    Family(
        "weaviate",
        "Weaviate's module reranker-transformers: `RERANKER_INFERENCE_API=http://HOST/weaviate`.",
        (WeaviateDialect(),),
        models=("/meta",),
        health=("/.well-known/ready", "/.well-known/live"),
    ),
)

RUNPOD = Family(
    "runpod",
    "RunPod's serverless API, `{endpoint}` is a model's name: `RUNPOD_ENDPOINT_BASE_URL=http://HOST/runpod/v2`, "
    "`runpodSdk(key, {baseUrl: 'http://HOST/runpod/v2'})`.",
    (RunpodDialect(),),
)
"""No member of FAMILIES: its paths name operations on jobs, so it has routes of its own."""
REPLICATE = Family(
    "replicate",
    "Replicate's predictions: `replicate.Client(base_url='http://HOST/replicate', api_token=KEY)`.",
    (ReplicateDialect(),),
)
"""As RUNPOD."""
_ALL = (*FAMILIES, RUNPOD, REPLICATE)
_BY_PREFIX = {family.name: family for family in _ALL}
_BY_NAME = {dialect.name: dialect for family in _ALL for dialect in family.dialects}


def family(name: str) -> Family:
    """The family of that name. Raises KeyError."""
    return _BY_PREFIX[name]


def dialect_by_name(name: str) -> Dialect:
    """The dialect a job was submitted in. Raises KeyError."""
    return _BY_NAME[name]


def dialect_for_path(path: str, root: Family = SUPERSET) -> Dialect:
    """The dialect that renders the errors of a path: from the family with its prefix, otherwise from the root's."""
    prefix, slash, rest = path.lstrip("/").partition("/")
    if prefix in _BY_PREFIX:
        return _BY_PREFIX[prefix].dialect_at(slash + rest)
    return root.dialect_at(path)


def mounted_families(root: Family = SUPERSET) -> Iterator[tuple[str, Family]]:
    """Each prefix with its family; the root's prefix is empty and comes first."""
    yield "", root
    for each in FAMILIES:
        yield f"/{each.name}", each
