"""Routes that clients of other systems call beside rerank: served models, whether a key is needed, health."""

from collections.abc import Iterable, Iterator
from typing import Any

from fastapi import APIRouter, Response

from api import VERSION
from api.dependencies import AppStateDep, OwnerDep
from api.dialects.registry import Family, mounted_families
from api.dialects.tei import TeiInfo, describe_model
from api.http.responses import json_response
from api.openapi.schemas import EXAMPLE_MODEL, ClusterAuth, response_doc
from api.routes.models import LIST_RESPONSES, list_models
from api.routes.operations import HEALTH_RESPONSES, health
from shared.models import ModelSpec

INFO_EXAMPLE = describe_model(
    ModelSpec(name=EXAMPLE_MODEL), max_documents=10_000, max_waiting=5000, shard_tokens=16_384, version=VERSION
)
_INFO: dict[str, Any] = {
    "summary": "The default model, as TEI tells it",
    "responses": {200: response_doc(TeiInfo, INFO_EXAMPLE, "The default model.")},
}
_HEALTH: dict[str, Any] = {"summary": "Whether the process answers", "responses": HEALTH_RESPONSES}
_EVERYBODYS = ("/health", "/info", "/models", "/v1/models")
_MODELS: dict[str, Any] = {"summary": "What is served", "responses": LIST_RESPONSES}


def make_router(root: Family) -> APIRouter:
    """The paths at the root, and those of each family under its prefix."""
    router = APIRouter()
    router.add_api_route(
        "/v1/cluster/auth",
        read_cluster_auth,
        responses={200: response_doc(ClusterAuth, {"auth": False}, "As Xinference's clients ask.")},
        summary="Whether a key is required",
        tags=["clients"],
    )
    router.add_api_route("/info", read_info, tags=["clients"], **_INFO)
    router.add_api_route("/models", list_models, tags=["clients"], **_MODELS)
    for prefix, family in mounted_families(root):
        for path in _elsewhere(prefix, family.models):
            router.add_api_route(path, list_models, tags=[family.name], **_MODELS)
        for path in _elsewhere(prefix, family.health):
            router.add_api_route(path, health, tags=[family.name], **_HEALTH)
        for path in _elsewhere(prefix, family.info):
            router.add_api_route(path, read_info, tags=[family.name], **_INFO)
    return router


def _elsewhere(prefix: str, paths: Iterable[str]) -> Iterator[str]:
    """A family's paths below its prefix; for the root's family only paths that the root does not already have."""
    return (prefix + path for path in paths if prefix or path not in _EVERYBODYS)


async def read_cluster_auth(state: AppStateDep) -> Response:
    """Whether a key is required. Needs no key itself."""
    return json_response({"auth": await state.authenticator.required()})


async def read_info(state: AppStateDep, _: OwnerDep) -> Response:
    """The served model, in the format of Text Embeddings Inference."""
    settings, spec = state.settings, state.service.models.default
    described = describe_model(
        spec,
        max_documents=settings.max_documents,
        max_waiting=settings.max_waiting,
        shard_tokens=settings.shard_tokens,
        version=VERSION,
        dtype=state.pools.pool(spec.name).signals.dtype,
    )
    return json_response(described)
