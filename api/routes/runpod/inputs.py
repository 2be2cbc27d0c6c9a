"""Reads a job's `input`, in the forms of RunPod's workers and in ours, and checks it against its endpoint.

The infinity worker's input has `docs`. worker-vllm's has `route` and `body`, or `openai_route` and `openai_input`:
it is answered in the dialect of that route. Any other object is a body of the superset. A list of inputs, plain or as
`inputs`, is one job of many requests.
"""

from dataclasses import dataclass
from typing import Any

from api.batches.line_requests import dialect_at
from api.batches.service import BULK_ENDPOINT
from api.dialects.base import Dialect
from api.dialects.registry import RUNPOD, Family, family
from shared.contracts import RerankRequest
from shared.errors import InvalidRequest, ModelNotFound
from shared.models import ModelRegistry, ModelSpec

DEFAULT_ENDPOINT = "default"
"""The endpoint of the default model, unless a model has this name."""
MAX_INPUTS = 10_000
_INFINITY_PATH = f"/{RUNPOD.name}{RUNPOD.dialects[0].paths[0]}"
_VLLM = family("vllm")
_ROUTED = {"openai_route": "openai_input", "route": "body"}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The endpoint of a path: `name` is the name that results show, `spec` the model that it stands for."""

    name: str
    spec: ModelSpec
    models: ModelRegistry
    root: Family


@dataclass(frozen=True, slots=True)
class Input:
    """One input. `path` selects the dialect of `body`; `dialect` and `request` are the result of reading it."""

    path: str
    body: dict[str, Any]
    dialect: Dialect
    request: RerankRequest


def find_endpoint(name: str, models: ModelRegistry, root: Family) -> Endpoint:
    """The endpoint with a model's name or alias. Raises ModelNotFound."""
    try:
        return Endpoint(name, models.resolve(name), models, root)
    except ModelNotFound as error:
        if name == DEFAULT_ENDPOINT:
            return Endpoint(models.default.name, models.default, models, root)
        raise ModelNotFound(error.message, param="endpoint") from None


def read_inputs(given: Any, endpoint: Endpoint) -> Input | list[Input]:
    """The input, or the inputs of a list. Raises InvalidRequest, which names the field below `input`."""
    where = "input"
    if isinstance(given, dict) and "inputs" in given:
        given, where = given["inputs"], "input.inputs"
        if not isinstance(given, list):
            raise InvalidRequest(f"{where} must be a list", param=where)
    if not isinstance(given, list):
        return _read_input(given, endpoint, where)
    if not 1 <= len(given) <= MAX_INPUTS:
        raise InvalidRequest(f"{where} must have 1 to {MAX_INPUTS} inputs", param=where)
    return [_read_input(each, endpoint, f"{where}[{position}]") for position, each in enumerate(given)]


def read_requests(body: Any, endpoint: Endpoint) -> list[Input]:
    """The requests in a batch's body: a list, plain or as `requests`, of inputs or of bodies of run with an `input`.

    Raises InvalidRequest, which names the field.
    """
    if isinstance(body, dict):
        body = body.get("requests")
    if not isinstance(body, list | None):
        raise InvalidRequest("requests must be a list", param="requests")
    return [_read_request(each, endpoint, f"requests[{position}]") for position, each in enumerate(body or ())]


def _read_request(given: Any, endpoint: Endpoint, where: str) -> Input:
    if isinstance(given, dict) and isinstance(given.get("input"), dict):
        for name in ("policy", "webhook"):
            if given.get(name) is not None:
                raise InvalidRequest(f"{where}.{name} is not supported in a batch", param=f"{where}.{name}")
        given, where = given["input"], f"{where}.input"
    return _read_input(given, endpoint, where)


def _read_input(given: Any, endpoint: Endpoint, where: str) -> Input:
    if not isinstance(given, dict):
        raise InvalidRequest(f"{where} must be an object", param=where)
    path, body, where = _open(given, endpoint.root, where)
    dialect = dialect_at(path, endpoint.root)
    assert dialect is not None
    dialect = dialect.dialect_for_body(body)
    try:
        request = dialect.parse(body)
    except InvalidRequest as error:
        raise InvalidRequest(f"{where}: {error.message}", param=f"{where}.{error.param}") from None
    if request.model is not None and not _names(request.model, endpoint):
        raise InvalidRequest(
            f"{where}: model {request.model[:200]!r} is not that of this endpoint, {endpoint.spec.name!r}",
            param=f"{where}.model",
        )
    model = request.model or endpoint.name
    return Input(path, body | {"model": model}, dialect, request.model_copy(update={"model": model}))


def _open(given: dict[str, Any], root: Family, where: str) -> tuple[str, dict[str, Any], str]:
    """The path of the input's dialect, its body, and what errors call the body."""
    for route_field, body_field in _ROUTED.items():
        if route_field in given:
            path = _path_of(given[route_field], root, f"{where}.{route_field}")
            method = given.get("method")
            if method is not None and str(method).upper() != "POST":
                raise InvalidRequest(f"{where}.method must be POST", param=f"{where}.method")
            body = given.get(body_field)
            if not isinstance(body, dict):
                raise InvalidRequest(f"{where}.{body_field} must be an object", param=f"{where}.{body_field}")
            return path, body, f"{where}.{body_field}"
    return _INFINITY_PATH if "docs" in given else BULK_ENDPOINT, given, where


def _path_of(route: Any, root: Family, param: str) -> str:
    """The path of a worker's route: worker-vllm has vLLM's routes; others are those of this service."""
    if isinstance(route, str):
        route = f"/{route.strip('/')}"
        path = f"/{_VLLM.name}{route}" if _is_path_of(_VLLM, route) else route
        if dialect_at(path, root) is not None:
            return path
    raise InvalidRequest(
        f"{param} must be the path of a rerank route, for example /v1/rerank or /score, not {str(route)[:100]!r}",
        param=param,
    )


def _is_path_of(each: Family, route: str) -> bool:
    return any(route in (*dialect.paths, *dialect.aliases) for dialect in each.dialects)


def _names(model: str, endpoint: Endpoint) -> bool:
    """Whether the name is one of the endpoint's model."""
    try:
        return endpoint.models.resolve(model) is endpoint.spec
    except ModelNotFound:
        return False


def lines_of(inputs: list[Input]) -> list[dict[str, Any]]:
    """The inputs as requests of a job of many requests."""
    return [{"url": each.path, "body": each.body} for each in inputs]
