"""The document is whole and right; that its examples run is shown on a running service, in tests/wire."""

from typing import Any

import pytest

from api.app import create_app
from api.dialects.registry import FAMILIES
from api.openapi.examples import ERRORS
from api.settings import ApiSettings
from shared.errors import ConfigurationError, JobNotFinished, MethodNotAllowed, Overloaded, RouteNotFound
from shared.models import ModelRegistry, ModelSpec
from tests.shared.support import MODEL
from tests.shared.test_errors import LEAVES

# Of other routes, of the operator alone, or not raised yet.
MET_ELSEWHERE = {RouteNotFound, MethodNotAllowed, JobNotFinished, ConfigurationError, Overloaded}


def document_of(**settings: Any) -> dict[str, Any]:
    return create_app(ApiSettings(**settings), ModelRegistry([ModelSpec(name=MODEL)])).openapi()


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return document_of()


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, each) for path, methods in document["paths"].items() for method, each in methods.items()]


def test_every_dialects_paths_are_there_under_its_own_tag(document: dict[str, Any]) -> None:
    for family in FAMILIES[1:]:
        for dialect in family.dialects:
            for path in dialect.paths:
                assert document["paths"][f"/{family.name}{path}"]["post"]["tags"] == [family.name]


def test_every_tag_says_what_it_is_for(document: dict[str, Any]) -> None:
    described = {tag["name"] for tag in document["tags"] if tag["description"]}
    assert described == {tag for _, _, each in operations(document) for tag in each["tags"]}


def test_the_roots_dialect_is_shown_once_without_its_prefix(document: dict[str, Any]) -> None:
    assert not [path for path in document["paths"] if path.startswith("/superset")]
    other = document_of(root_dialect="cohere")
    assert other["paths"]["/v2/rerank"]["post"]["tags"] == ["cohere"]
    assert not [path for path in other["paths"] if path.startswith("/cohere")]
    assert other["paths"]["/superset/v1/rerank"]["post"]["tags"] == ["superset"]


def test_every_answer_has_a_shape_and_an_example(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        for status, response in operation["responses"].items():
            if status == "204":
                continue
            body = response["content"]["application/json"]
            assert body["schema"], (path, method, status)
            assert body.get("example") or body.get("examples"), (path, method, status)


def test_every_rerank_route_has_requests_to_try(document: dict[str, Any]) -> None:
    for path, _, operation in operations(document):
        if "requestBody" not in operation:
            continue
        asked = operation["requestBody"]["content"]["application/json"]
        answered = {
            name
            for response in operation["responses"].values()
            for name in response["content"]["application/json"]["examples"]
        }
        assert asked["schema"], path
        assert set(asked["examples"]) <= answered, path


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def references(node: Any) -> set[str]:
        if isinstance(node, dict):
            found = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
            return found.union(*(references(each) for each in node.values()))
        return set().union(*(references(each) for each in node)) if isinstance(node, list) else set()

    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"], reference


def test_no_answer_may_have_more_than_is_named(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    answers = [schema for name, schema in schemas.items() if name.endswith(("Answer", "Row", "Usage", "Error"))]
    objects = [schema for schema in answers if schema.get("type") == "object"]
    assert objects
    assert all(schema["additionalProperties"] is False for schema in objects)


def test_frameworks_own_words_on_validation_are_not_promised(document: dict[str, Any]) -> None:
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_every_error_that_a_rerank_request_may_meet_is_documented() -> None:
    """Whoever adds an error decides which it is."""
    met = {type(error) for error in ERRORS}
    assert met.isdisjoint(MET_ELSEWHERE)
    assert met | MET_ELSEWHERE == set(LEAVES)


def test_operations_have_names_of_their_own(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(names)) == len(names)
