"""A job's result equals the waiting response byte for byte, in every dialect and at every path."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from api.dialects.registry import mounted_families
from api.dialects.root import RootDialect
from api.openapi.examples import answer_to


def successful_examples() -> Iterator[Any]:
    for prefix, family in mounted_families():
        for dialect in family.dialects:
            readers = dialect.readers("/v1/rerank") if prefix == "" else (dialect,)
            for reader in readers:
                for name, body in reader.examples.items():
                    if answer_to(dialect, body)[0] == 200:
                        label = f"{prefix or '/'} {reader.name} {name}"
                        yield pytest.param(prefix + dialect.paths[0], body, id=label)


@pytest.mark.parametrize(("path", "body"), list(successful_examples()))
def test_job_result_equals_the_waiting_response(client: httpx.Client, path: str, body: dict[str, Any]) -> None:
    key = {"Idempotency-Key": uuid4().hex}
    waited = client.post(path, json=body, headers=key)
    assert waited.status_code == 200
    job = client.post(path, json=body, headers=key | {"Prefer": "respond-async"})
    assert job.status_code == 202
    again = client.get(f"{job.headers['location']}/results")
    assert (again.status_code, again.content) == (200, waited.content)
    assert again.headers["content-type"] == waited.headers["content-type"]


@pytest.mark.parametrize(("path", "body"), list(successful_examples()))
def test_waiting_response_equals_the_result_of_an_existing_job(
    client: httpx.Client, path: str, body: dict[str, Any]
) -> None:
    key = {"Idempotency-Key": uuid4().hex}
    job = client.post(path, json=body, headers=key | {"Prefer": "respond-async"})
    assert job.status_code == 202
    waited = client.post(path, json=body, headers=key)
    assert waited.content == client.get(f"{job.headers['location']}/results").content


def test_root_has_seven_readers() -> None:
    assert len(RootDialect().readers("/v1/rerank")) == 7
