"""Routes of the served models."""

from typing import Any

from fastapi import APIRouter, Response

from api.dependencies import AppState, AppStateDep, OwnerDep
from api.http.responses import json_response
from api.openapi.schemas import EXAMPLE_MODEL_BODY, ServedModel, ServedModels, response_doc
from shared.models import ModelSpec

router = APIRouter(prefix="/v1/models", tags=["models"])

LIST_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: response_doc(ServedModels, {"object": "list", "data": [EXAMPLE_MODEL_BODY]}, "The models.")
}
_MODEL_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: response_doc(ServedModel, EXAMPLE_MODEL_BODY, "The model."),
    404: {"description": "The model is not served."},
}


@router.get("", responses=LIST_RESPONSES)
async def list_models(state: AppStateDep, _: OwnerDep) -> Response:
    """Every model, the default one first, and how many workers it has."""
    models = [_describe(state, spec) for spec in state.service.models.specs]
    return json_response({"object": "list", "data": models})


@router.get("/{name:path}", responses=_MODEL_RESPONSES)
async def read_model(name: str, state: AppStateDep, _: OwnerDep) -> Response:
    """One model, by its name or an alias."""
    return json_response(_describe(state, state.service.models.resolve(name)))


def _describe(state: AppState, spec: ModelSpec) -> dict[str, Any]:
    signals = state.pools.pool(spec.name).signals
    return {
        "id": spec.name,
        "object": "model",
        "created": 0,
        "owned_by": "rerankq",
        "model_type": "rerank",
        "aliases": spec.aliases,
        "dtype": signals.dtype,
        "workers": {"ready": signals.ready, "starting": signals.starting},
    }
