"""Every example of the OpenAPI document, sent to a running service as it stands: it answers as the document says."""

import copy
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.stacks import PANDA
from tests.wire.support import DOCUMENT, JSON, masked, rerank_routes, shape


def requests() -> Iterator[Any]:
    for path, operation in rerank_routes():
        for name, example in operation["requestBody"]["content"][JSON]["examples"].items():
            yield pytest.param(path, operation, name, example["value"], id=f"{path} {name}")


def reads() -> Iterator[Any]:
    for path, methods in DOCUMENT["paths"].items():
        if "get" in methods and "{" not in path:
            yield pytest.param(path, methods["get"], id=path)


def expected(operation: dict[str, Any], name: str) -> tuple[int, Any]:
    """Status and body that the document promises for an example."""
    for status, response in operation["responses"].items():
        if name in (examples := response["content"][JSON]["examples"]):
            return int(status), examples[name]["value"]
    raise AssertionError(f"nothing is promised for {name}")


@pytest.mark.parametrize(("path", "operation", "name", "body"), list(requests()))
def test_an_example_is_answered_as_the_document_says(
    client: httpx.Client, path: str, operation: dict[str, Any], name: str, body: dict[str, Any]
) -> None:
    answer = client.post(path, json=body)
    status, promised = expected(operation, name)
    assert (answer.status_code, masked(answer.json())) == (status, masked(copy.deepcopy(promised)))


def is_alike(one: Any, other: Any) -> bool:
    """Whether two shapes have the same fields; a null is what is not known yet, and may be anything."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_alike(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(is_alike(*pair) for pair in zip(one, other, strict=True))
    return one == other or "NoneType" in (one, other)


@pytest.mark.parametrize(("path", "operation"), list(reads()))
def test_what_is_read_has_the_documented_form(client: httpx.Client, path: str, operation: dict[str, Any]) -> None:
    answer = client.get(path)
    body = operation["responses"]["200"]["content"][JSON]
    assert answer.status_code == 200
    assert is_alike(shape(answer.json()), shape(body["example"]))


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
    results = DOCUMENT["paths"]["/v1/jobs/{job_id}/results"]["get"]["responses"]["200"]["content"][JSON]
    assert shape(result.json()) == shape(results["examples"]["superset"]["value"])
    canceled = client.post(f"{location}/cancel")
    assert shape(canceled.json()) == shape(done.json())
    assert client.delete(location).status_code == 204


def example_of(method: str, path: str) -> Any:
    return DOCUMENT["paths"][path][method]["responses"]["200"]["content"][JSON]["example"]
