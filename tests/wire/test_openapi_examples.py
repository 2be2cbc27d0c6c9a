"""Sends every example of the OpenAPI document to a running service and compares the responses with the document."""

import copy
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.stacks import PANDA
from tests.wire.support import DOCUMENT, JSON, mask_variable_fields, rerank_routes, shape


def example_requests() -> Iterator[Any]:
    for path, operation in rerank_routes():
        for name, example in operation["requestBody"]["content"][JSON]["examples"].items():
            yield pytest.param(path, operation, name, example["value"], id=f"{path} {name}")


def get_operations() -> Iterator[Any]:
    for path, methods in DOCUMENT["paths"].items():
        if "get" in methods and "{" not in path:
            yield pytest.param(path, methods["get"], id=path)


def expected(operation: dict[str, Any], name: str) -> tuple[int, Any]:
    """The documented status and body of an example."""
    for status, response in operation["responses"].items():
        if name in (examples := response["content"][JSON]["examples"]):
            return int(status), examples[name]["value"]
    raise AssertionError(f"no response is documented for the example {name}")


@pytest.mark.parametrize(("path", "operation", "name", "body"), list(example_requests()))
def test_example_request_gets_the_documented_response(
    client: httpx.Client, path: str, operation: dict[str, Any], name: str, body: dict[str, Any]
) -> None:
    response = client.post(path, json=body)
    status, documented = expected(operation, name)
    assert (response.status_code, mask_variable_fields(response.json())) == (
        status,
        mask_variable_fields(copy.deepcopy(documented)),
    )


def same_shape(one: Any, other: Any) -> bool:
    """Whether two shapes have the same fields. A null and an empty list match any: their values are not known yet."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_shape(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return not (one and other) or (
            len(one) == len(other) and all(same_shape(*pair) for pair in zip(one, other, strict=True))
        )
    return one == other or "NoneType" in (one, other)


@pytest.mark.parametrize(("path", "operation"), list(get_operations()))
def test_get_response_has_the_documented_shape(client: httpx.Client, path: str, operation: dict[str, Any]) -> None:
    response = client.get(path)
    body = operation["responses"]["200"]["content"][JSON]
    assert response.status_code == 200
    assert same_shape(shape(response.json()), shape(body["example"]))


def test_job_has_the_documented_shape(client: httpx.Client) -> None:
    accepted = client.post("/v1/rerank", json=PANDA, headers={"Prefer": "respond-async"})
    documented = expected(DOCUMENT["paths"]["/v1/rerank"]["post"], "job")
    # A worker may already have started or finished the job. The record then has more fields.
    assert accepted.status_code == 202
    assert shape(documented[1]).items() <= shape(accepted.json()).items()
    location = accepted.headers["location"]
    done = client.get(location, headers={"Prefer": "wait=30"})
    assert shape(done.json()) == shape(example_of("get", "/v1/jobs/{job_id}"))
    result = client.get(f"{location}/results")
    results = DOCUMENT["paths"]["/v1/jobs/{job_id}/results"]["get"]["responses"]["200"]["content"][JSON]
    assert shape(result.json()) == shape(results["examples"]["superset"]["value"])
    canceled = client.post(f"{location}/cancel")
    assert shape(canceled.json()) == shape(done.json())
    assert client.delete(location).status_code == 204


def example_of(method: str, path: str) -> Any:
    return DOCUMENT["paths"][path][method]["responses"]["200"]["content"][JSON]["example"]
