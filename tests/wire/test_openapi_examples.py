"""Every example of the OpenAPI document, sent to a running service as it stands: it answers as the document says.

Statuses that a service in good order does not have are made elsewhere: a missing key, a body too large, a worker too
slow, each with the body that its dialect gives it.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from api.app import create_app
from api.settings import ApiSettings
from shared.models import ModelRegistry, ModelSpec
from tests.stacks import PANDA, client_of, running, write_models
from tests.wire.support import masked

APP: FastAPI = create_app(ApiSettings(), ModelRegistry([ModelSpec(name="all-MiniLM-L6-v2")]))
DOCUMENT: dict[str, Any] = APP.openapi()
_JSON = "application/json"


def rerank_routes() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in DOCUMENT["paths"].items():
        if "requestBody" in methods.get("post", {}):
            yield path, methods["post"]


def requests() -> Iterator[Any]:
    for path, operation in rerank_routes():
        for name, example in operation["requestBody"]["content"][_JSON]["examples"].items():
            yield pytest.param(path, operation, name, example["value"], id=f"{path} {name}")


def reads() -> Iterator[Any]:
    for path, methods in DOCUMENT["paths"].items():
        if "get" in methods and "{" not in path:
            yield pytest.param(path, methods["get"], id=path)


def expected(operation: dict[str, Any], name: str) -> tuple[int, Any]:
    """Status and body that the document promises for an example."""
    for status, response in operation["responses"].items():
        if name in (examples := response["content"][_JSON]["examples"]):
            return int(status), examples[name]["value"]
    raise AssertionError(f"nothing is promised for {name}")


def shape(value: Any) -> Any:
    """The names and the kinds of what is there; a model's or a worker's own are left out."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


@pytest.mark.parametrize(("path", "operation", "name", "body"), list(requests()))
def test_an_example_is_answered_as_the_document_says(
    client: httpx.Client, path: str, operation: dict[str, Any], name: str, body: dict[str, Any]
) -> None:
    answer = client.post(path, json=body)
    status, promised = expected(operation, name)
    assert (answer.status_code, masked(answer.json())) == (status, masked(promised_copy(promised)))


def promised_copy(promised: Any) -> Any:
    return json.loads(json.dumps(promised))


@pytest.mark.parametrize(("path", "operation"), list(reads()))
def test_what_is_read_has_the_documented_form(client: httpx.Client, path: str, operation: dict[str, Any]) -> None:
    answer = client.get(path)
    body = operation["responses"]["200"]["content"][_JSON]
    assert answer.status_code == 200
    assert shape(answer.json()) == shape(body["example"])


def test_a_job_has_the_documented_form(client: httpx.Client) -> None:
    taken = client.post("/v1/rerank", json=PANDA, headers={"Prefer": "respond-async"})
    promised = expected(DOCUMENT["paths"]["/v1/rerank"]["post"], "job")
    # A worker may have begun, or be done, by the time that the job is described: then it has more to tell.
    assert taken.status_code == 202
    assert shape(promised[1]).items() <= shape(taken.json()).items()
    location = taken.headers["location"]
    done = client.get(location, headers={"Prefer": "wait=10"})
    assert shape(done.json()) == shape(example_of("get", "/v1/jobs/{job_id}"))
    result = client.get(f"{location}/results")
    results = DOCUMENT["paths"]["/v1/jobs/{job_id}/results"]["get"]["responses"]["200"]["content"][_JSON]
    assert shape(result.json()) == shape(results["examples"]["superset"]["value"])
    canceled = client.post(f"{location}/cancel")
    assert shape(canceled.json()) == shape(done.json())
    assert client.delete(location).status_code == 204


def example_of(method: str, path: str) -> Any:
    return DOCUMENT["paths"][path][method]["responses"]["200"]["content"][_JSON]["example"]


every_route = pytest.mark.parametrize("path", [path for path, _ in rerank_routes()])


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Scores slowly, waits briefly, takes small bodies."""
    models = write_models(tmp_path_factory.mktemp("models"), engine_args={"delay_seconds": 3.0})
    environment = {
        "RERANKQ_MODELS_FILE": models,
        "RERANKQ_WAIT_SECONDS": "0.1",
        "RERANKQ_MAX_BODY_BYTES": "2048",
    }
    with running(environment=environment) as stack, client_of(stack) as opened:
        yield opened


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Its model cannot be loaded."""
    folder: Path = tmp_path_factory.mktemp("broken")
    environment = {"RERANKQ_MODELS_FILE": write_models(folder, engine_args={"delay_seconds": "soon"})}
    with running(engine=None, ready=False, environment=environment) as stack, client_of(stack) as opened:
        wait_for_failure(opened)
        yield opened


@every_route
def test_a_result_that_comes_too_late(strict: httpx.Client, path: str) -> None:
    answer = strict.post(path, json=first_example(path))
    assert_documented(path, answer, 504)
    assert int(answer.headers["retry-after"]) >= 1
    strict.post(f"{answer.headers['location']}/cancel")


@every_route
def test_a_body_that_is_too_large(strict: httpx.Client, path: str) -> None:
    assert_documented(path, strict.post(path, content=b" " * 3000), 413)


@every_route
def test_a_model_that_failed_to_start(broken: httpx.Client, path: str) -> None:
    answer = broken.post(path, json=first_example(path))
    assert_documented(path, answer, 503)
    assert int(answer.headers["retry-after"]) >= 1


def first_example(path: str) -> Any:
    """Without the name of a model: other stacks serve others."""
    examples = DOCUMENT["paths"][path]["post"]["requestBody"]["content"][_JSON]["examples"]
    return {name: value for name, value in next(iter(examples.values()))["value"].items() if name != "model"}


def assert_documented(path: str, answer: httpx.Response, status: int) -> None:
    """The status is promised, and the body has the form of what is promised for it."""
    assert answer.status_code == status, answer.text
    promised = DOCUMENT["paths"][path]["post"]["responses"][str(status)]["content"][_JSON]["examples"]
    forms = [shape(example["value"]) for example in promised.values()]
    body = shape(answer.json())
    if "param" in body.get("error", {}):
        body["error"]["param"] = next(form["error"]["param"] for form in forms if "param" in form["error"])
    assert body in forms


def wait_for_failure(client: httpx.Client) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            models = client.get("/ready").json()["models"]
        except httpx.TransportError:
            models = {}
        if any("failure" in model for model in models.values()):
            return
        time.sleep(0.2)
    raise AssertionError("the model was expected to fail")
