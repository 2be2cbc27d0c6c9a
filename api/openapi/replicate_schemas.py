"""Schemas and examples of Replicate's paths, for the OpenAPI document and for the versions of models."""

from typing import Annotated, Any, Literal

from pydantic import Field

from api.dialects import examples
from api.dialects.schemas import Omitted, RequestSchema, ResponseSchema
from api.dialects.superset import SupersetRequest
from api.openapi.batch_schemas import request_doc
from api.openapi.schemas import EXAMPLE_JOB_ID, EXAMPLE_MODEL, response_doc

_Input = Annotated[dict[str, Any], Field(description="A body of the superset, or `input_list`: pairs to score.")]
_Responses = dict[int | str, dict[str, Any]]


def _input_schema() -> dict[str, Any]:
    described = SupersetRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas = described.pop("$defs", {}) | {"Input": described, "Output": {"title": "Output"}}
    info = {"title": "rerankq", "version": "1"}
    return {"openapi": "3.1.0", "info": info, "paths": {}, "components": {"schemas": schemas}}


INPUT_SCHEMA = _input_schema()
"""An OpenAPI document with the input and output of a model, as versions of models have it."""


class ReplicateCreation(RequestSchema):
    """`webhook`, `webhook_completed` and `webhook_events_filter` are refused; other fields are ignored."""

    input: _Input


class ReplicateVersionCreation(ReplicateCreation):
    """An input, and the model."""

    version: Annotated[str, Field(min_length=1, description="`OWNER/NAME`, `OWNER/NAME:VERSION` or a version's id.")]


class ReplicateMetrics(ResponseSchema):
    """Seconds. Empty until the end."""

    predict_time: float | Omitted = None
    total_time: float | Omitted = None


class ReplicateUrls(ResponseSchema):
    """Where the prediction is read and canceled."""

    get: str
    cancel: str


class ReplicatePrediction(ResponseSchema):
    """A prediction. The input is not returned."""

    id: str
    model: str
    version: str
    status: Literal["starting", "processing", "succeeded", "failed", "canceled"]
    input: dict[str, Any]
    output: Any | None
    error: str | None
    logs: str
    metrics: ReplicateMetrics
    created_at: str
    started_at: str | None
    completed_at: str | None
    urls: ReplicateUrls


class ReplicateVersion(ResponseSchema):
    """The version of a model."""

    id: str
    created_at: str
    cog_version: str
    openapi_schema: dict[str, Any]


class ReplicateModel(ResponseSchema):
    """A served model. What the service does not know is null, and `run_count` is 0."""

    url: str
    owner: str
    name: str
    description: None
    visibility: Literal["private"]
    github_url: None
    paper_url: None
    license_url: None
    run_count: Literal[0]
    cover_image_url: None
    default_example: None
    latest_version: ReplicateVersion


_BASE = "http://127.0.0.1:8000/replicate/v1"
_URL = f"{_BASE}/predictions/{EXAMPLE_JOB_ID}"
_STARTING: dict[str, Any] = {
    "id": EXAMPLE_JOB_ID,
    "model": f"rerankq/{EXAMPLE_MODEL}",
    "version": EXAMPLE_MODEL,
    "status": "starting",
    "input": {},
    "output": None,
    "error": None,
    "logs": "",
    "metrics": {},
    "created_at": "2026-11-21T00:49:56.000Z",
    "started_at": None,
    "completed_at": None,
    "urls": {"get": _URL, "cancel": f"{_URL}/cancel"},
}
_SUCCEEDED = _STARTING | {
    "status": "succeeded",
    "output": [0.0, 0.5, 0.6938],
    "metrics": {"predict_time": 0.017, "total_time": 0.021},
    "started_at": "2026-11-21T00:49:56.004Z",
    "completed_at": "2026-11-21T00:49:56.021Z",
}
_VERSION = {
    "id": EXAMPLE_MODEL,
    "created_at": "1970-01-01T00:00:00.000Z",
    "cog_version": "0.16.0",
    "openapi_schema": {"openapi": "3.1.0", "components": {"schemas": {"Input": {}, "Output": {}}}},
}
_MODEL = {
    "url": f"{_BASE}/models/rerankq/{EXAMPLE_MODEL}",
    "owner": "rerankq",
    "name": EXAMPLE_MODEL,
    "description": None,
    "visibility": "private",
    "github_url": None,
    "paper_url": None,
    "license_url": None,
    "run_count": 0,
    "cover_image_url": None,
    "default_example": None,
    "latest_version": _VERSION,
}
_INVALID = {"description": "A field is invalid; the message names it."}
_NO_MODEL = {"description": "No such model is served."}

CREATE: _Responses = {
    201: response_doc(ReplicatePrediction, _SUCCEEDED, "The prediction, with its output if the call waited for it."),
    202: response_doc(ReplicatePrediction, _STARTING, "The prediction; the call waited, and it has not ended."),
    404: _NO_MODEL,
    413: {"description": "The body is over the limit."},
    422: _INVALID,
}
PREDICTION: _Responses = {
    200: response_doc(ReplicatePrediction, _SUCCEEDED, "The prediction."),
    404: {"description": "There is no such prediction, or it belongs to another key."},
}
MODEL: _Responses = {200: response_doc(ReplicateModel, _MODEL, "The model."), 404: _NO_MODEL}
MODEL_VERSION: _Responses = {
    200: response_doc(ReplicateVersion, _VERSION, "The version."),
    404: {"description": "No such model is served, or it has another name."},
}
_EXAMPLE = {"input": {"query": examples.QUERY, "documents": examples.DOCUMENTS, "top_n": 2}}
CREATE_OF_MODEL_BODY = request_doc(ReplicateCreation, _EXAMPLE)
CREATE_BODY = request_doc(ReplicateVersionCreation, {"version": f"rerankq/{EXAMPLE_MODEL}"} | _EXAMPLE)
