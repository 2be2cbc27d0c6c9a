"""The OpenAPI document, and functions that compare bodies with it."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from api.app import create_app
from api.settings import ApiSettings
from shared.models import ModelRegistry, ModelSpec

JSON = "application/json"
DOCUMENT: dict[str, Any] = create_app(ApiSettings(), ModelRegistry([ModelSpec(name="all-MiniLM-L6-v2")])).openapi()
OTHER_TAGS = ("jobs", "files", "batches", "webhooks", "runpod", "replicate")
"""The tags of routes whose bodies are not those of a dialect."""


def rerank_routes() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields each rerank path and its operation in the OpenAPI document."""
    for path, methods in DOCUMENT["paths"].items():
        post = methods.get("post", {})
        if "requestBody" in post and post["tags"][0] not in OTHER_TAGS:
            yield path, methods["post"]


every_rerank_path = pytest.mark.parametrize("path", [path for path, _ in rerank_routes()])


def first_example(path: str) -> dict[str, Any]:
    """A valid body for this path, without the model: not every stack serves the same one."""
    examples = DOCUMENT["paths"][path]["post"]["requestBody"]["content"][JSON]["examples"]
    return {name: value for name, value in next(iter(examples.values()))["value"].items() if name != "model"}


def mask_variable_fields(body: Any) -> Any:
    """Replace ids, timestamps and durations by `<name>` in place, and return the body."""
    if not isinstance(body, dict):
        return body
    for name, kind in (("id", str), ("request_id", str), ("created", int)):
        if name in body:
            assert isinstance(body[name], kind)
            body[name] = f"<{name}>"
    if "latency" in (extra := body.get("extra_fields", {})):
        assert isinstance(extra["latency"], int)
        extra["latency"] = "<latency>"
    return body


def shape(value: Any) -> Any:
    """The field names and types of a JSON value. Of a list, the shape of its first entry."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def assert_documented(path: str, response: httpx.Response, status: int) -> None:
    """Asserts that the response has this status, and the shape of one of the examples documented for it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == JSON
    examples = DOCUMENT["paths"][path]["post"]["responses"][str(status)]["content"][JSON]["examples"]
    shapes = [_without_param(shape(example["value"])) for example in examples.values()]
    assert _without_param(shape(response.json())) in shapes


def _without_param(body_shape: Any) -> Any:
    """Removes the error's `param`, because not every error has one."""
    if isinstance(body_shape.get("error"), dict):
        body_shape["error"].pop("param", None)
    return body_shape
