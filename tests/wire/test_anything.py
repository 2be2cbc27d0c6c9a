"""Sends generated, almost valid bodies to every dialect and checks that each response is a documented one.

Sends a few hundred bodies; `make test-fuzz` sends thousands.
"""

import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from pydantic import BaseModel

from api.dialects.base import Dialect
from api.dialects.registry import SUPERSET, mounted_families
from tests.api.dialects.support import bodies

few_examples = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
PATHS = [
    pytest.param(prefix + path, dialect, id=prefix + path)
    for prefix, family in mounted_families()
    if family is not SUPERSET or prefix == ""
    for dialect in family.dialects
    for path in dialect.paths[:1]
]


@pytest.mark.parametrize(("path", "dialect"), PATHS)
@few_examples
@given(body=bodies)
def test_any_body_gets_a_documented_response(
    client: httpx.Client, path: str, dialect: Dialect, body: dict[str, Any]
) -> None:
    # The body may contain infinity, which json.dumps writes but httpx's `json` argument rejects.
    response = client.post(path, content=json.dumps(body))
    assert response.status_code in (200, 400, 404, 422), response.text
    assert response.headers["content-type"] == "application/json"
    models: tuple[type[BaseModel], ...] = (dialect.error_model,)
    if response.status_code == 200:
        models = tuple(dialect.answer_models)
    assert any(matches(model, response.json()) for model in models), response.text


def matches(model: type[BaseModel], body: Any) -> bool:
    try:
        model.model_validate(body, strict=True)
    except ValueError:
        return False
    return True
