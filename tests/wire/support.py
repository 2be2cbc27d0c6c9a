"""What the tests of the wire share: the OpenAPI document, and the comparing of bodies with it."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from api.app import create_app
from api.settings import ApiSettings
from shared.models import ModelRegistry, ModelSpec

JSON = "application/json"
DOCUMENT: dict[str, Any] = create_app(ApiSettings(), ModelRegistry([ModelSpec(name="all-MiniLM-L6-v2")])).openapi()


def rerank_routes() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each path that ranks, with what the document says of it."""
    for path, methods in DOCUMENT["paths"].items():
        if "requestBody" in methods.get("post", {}):
            yield path, methods["post"]


every_route = pytest.mark.parametrize("path", [path for path, _ in rerank_routes()])


def first_example(path: str) -> dict[str, Any]:
    """A body that is answered; without the name of a model, for other stacks serve others."""
    examples = DOCUMENT["paths"][path]["post"]["requestBody"]["content"][JSON]["examples"]
    return {name: value for name, value in next(iter(examples.values()))["value"].items() if name != "model"}


def masked(answer: Any) -> Any:
    """The body with `<name>` for what differs every time: ids, times, milliseconds."""
    if not isinstance(answer, dict):
        return answer
    for name, kind in (("id", str), ("request_id", str), ("created", int)):
        if name in answer:
            assert isinstance(answer[name], kind)
            answer[name] = f"<{name}>"
    if "latency" in (extra := answer.get("extra_fields", {})):
        assert isinstance(extra["latency"], int)
        extra["latency"] = "<latency>"
    return answer


def shape(value: Any) -> Any:
    """The names of what is there, and the kinds; of a list, those of its first entry."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def assert_documented(path: str, answer: httpx.Response, status: int) -> None:
    """The status is promised, and the body has the form of what is promised for it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == JSON
    promised = DOCUMENT["paths"][path]["post"]["responses"][str(status)]["content"][JSON]["examples"]
    forms = [_without_param(shape(example["value"])) for example in promised.values()]
    assert _without_param(shape(answer.json())) in forms


def _without_param(form: Any) -> Any:
    """Which field is wrong is not always to be said."""
    if isinstance(form.get("error"), dict):
        form["error"].pop("param", None)
    return form
