"""The OpenAPI document is complete and consistent. tests/wire sends its examples to a running service."""

from typing import Any

import pytest

from api.app import create_app
from api.dialects.registry import FAMILIES
from api.openapi.examples import ERRORS
from api.settings import ApiSettings
from shared.errors import (
    BatchNotFound,
    ConfigurationError,
    JobNotFinished,
    MethodNotAllowed,
    PayloadMissing,
    PayloadsFull,
    PayloadsUnavailable,
    RouteNotFound,
    StoredFileInUse,
    StoredFileNotFound,
    WebhookNotFound,
)
from shared.models import ModelRegistry, ModelSpec
from tests.shared.support import MODEL
from tests.shared.test_errors import LEAVES

# Errors of other routes, and errors only for the operator.
NOT_DOCUMENTED = {RouteNotFound, MethodNotAllowed, JobNotFinished, ConfigurationError} | {
    *(BatchNotFound, StoredFileNotFound, StoredFileInUse, PayloadsUnavailable, PayloadsFull, PayloadMissing),
    WebhookNotFound,
}


def make_document(**settings: Any) -> dict[str, Any]:
    return create_app(ApiSettings(**settings), ModelRegistry([ModelSpec(name=MODEL)])).openapi()


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return make_document()


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, each) for path, methods in document["paths"].items() for method, each in methods.items()]


def test_every_dialects_paths_have_its_tag(document: dict[str, Any]) -> None:
    for family in FAMILIES[1:]:
        for dialect in family.dialects:
            for path in dialect.paths:
                assert document["paths"][f"/{family.name}{path}"]["post"]["tags"] == [family.name]


def test_every_tag_has_a_description(document: dict[str, Any]) -> None:
    described = {tag["name"] for tag in document["tags"] if tag["description"]}
    assert described == {tag for _, _, each in operations(document) for tag in each["tags"]}


def test_root_dialect_is_documented_only_without_its_prefix(document: dict[str, Any]) -> None:
    assert not [path for path in document["paths"] if path.startswith("/superset")]
    other = make_document(root_dialect="cohere")
    assert other["paths"]["/v2/rerank"]["post"]["tags"] == ["cohere"]
    assert not [path for path in other["paths"] if path.startswith("/cohere")]
    assert other["paths"]["/superset/v1/rerank"]["post"]["tags"] == ["superset"]


def test_every_response_has_a_schema_and_an_example(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        for status, response in operation["responses"].items():
            if status == "204":
                continue
            content = response["content"]
            if status == "200" and not content.keys().isdisjoint(("application/jsonl", "text/event-stream")):
                continue
            body = content["application/json"]
            assert body["schema"], (path, method, status)
            assert body.get("example") or body.get("examples"), (path, method, status)


def test_every_example_request_has_an_example_response(document: dict[str, Any]) -> None:
    for path, _, operation in operations(document):
        # The bodies of other routes are not those of a dialect.
        others = ("jobs", "files", "batches", "webhooks", "runpod", "replicate")
        if "requestBody" not in operation or operation["tags"][0] in others:
            continue
        request = operation["requestBody"]["content"]["application/json"]
        response_examples = {
            name
            for response in operation["responses"].values()
            for name in response["content"]["application/json"]["examples"]
        }
        assert request["schema"], path
        assert set(request["examples"]) <= response_examples, path


def test_every_reference_resolves(document: dict[str, Any]) -> None:
    def references(node: Any) -> set[str]:
        if isinstance(node, dict):
            found = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
            return found.union(*(references(each) for each in node.values()))
        return set().union(*(references(each) for each in node)) if isinstance(node, list) else set()

    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"], reference


def test_response_schemas_allow_no_additional_properties(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    responses = [schema for name, schema in schemas.items() if name.endswith(("Answer", "Row", "Usage", "Error"))]
    objects = [schema for schema in responses if schema.get("type") == "object"]
    assert objects
    assert all(schema["additionalProperties"] is False for schema in objects)


def test_fastapis_validation_error_is_not_documented(document: dict[str, Any]) -> None:
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_every_error_of_a_rerank_request_is_documented() -> None:
    """A new error must be added to the documented errors or to NOT_DOCUMENTED."""
    documented = {type(error) for error in ERRORS}
    assert documented.isdisjoint(NOT_DOCUMENTED)
    assert documented | NOT_DOCUMENTED == set(LEAVES)


def test_operation_ids_are_unique(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(names)) == len(names)
