"""Whatever is sent to whichever path, the answer is one that the OpenAPI document names, in its shape.

The short form of `make test-fuzz`: bodies that are nearly right, a few hundred of them.
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

few = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SPOKEN = [
    pytest.param(prefix + path, dialect, id=prefix + path)
    for prefix, family in mounted_families()
    if family is not SUPERSET or prefix == ""
    for dialect in family.dialects
    for path in dialect.paths[:1]
]


@pytest.mark.parametrize(("path", "dialect"), SPOKEN)
@few
@given(body=bodies)
def test_an_answer_is_one_of_those_that_are_named(
    client: httpx.Client, path: str, dialect: Dialect, body: dict[str, Any]
) -> None:
    # Infinity among it, which is no JSON.
    answer = client.post(path, content=json.dumps(body))
    assert answer.status_code in (200, 400, 404, 422), answer.text
    assert answer.headers["content-type"] == "application/json"
    models: tuple[type[BaseModel], ...] = (dialect.error_model,)
    if answer.status_code == 200:
        models = tuple(dialect.answer_models)
    assert any(fits(model, answer.json()) for model in models), answer.text


def fits(model: type[BaseModel], body: Any) -> bool:
    try:
        model.model_validate(body, strict=True)
    except ValueError:
        return False
    return True
