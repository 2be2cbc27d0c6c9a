"""The documented errors of a service that is not in good order, or is asked too much: each, from every dialect.

What a running service cannot be brought to say at will (an engine that fails) is compared in tests/api/dialects.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from api.auth.key_store import KeyStore
from api.dialects.registry import dialect_for_path
from infra.local.stack import Stack
from shared.errors import ModelNotFound
from shared.store.client import connect_async
from tests.stacks import client_of, running, write_models
from tests.wire.support import assert_documented, every_route, first_example


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
        until(lambda: any("failure" in model for model in opened.get("/ready").json()["models"].values()))
        yield opened


@pytest.fixture(scope="module")
def locked() -> Iterator[httpx.Client]:
    """Wants a key."""
    with running() as stack, client_of(stack) as opened:
        asyncio.run(make_key(stack))
        until(lambda: opened.get("/v1/models").status_code == 401)
        yield opened


async def make_key(stack: Stack) -> None:
    async with connect_async(stack.redis_url) as store:
        await KeyStore(store).create("somebody")


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError("that does not come about")


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


@every_route
def test_a_key_that_is_missing(locked: httpx.Client, path: str) -> None:
    answer = locked.post(path, json=first_example(path))
    assert_documented(path, answer, 401)
    assert answer.headers["www-authenticate"] == "Bearer"


@every_route
def test_a_model_that_is_not_served(client: httpx.Client, path: str) -> None:
    body = first_example(path) | {"model": "nope"}
    status = dialect_for_path(path).status_of(ModelNotFound("no"))
    assert_documented(path, client.post(path, json=body), status)


@every_route
def test_a_key_that_stands_for_another_request(client: httpx.Client, path: str) -> None:
    headers = {"Idempotency-Key": uuid4().hex, "Prefer": "respond-async"}
    body = first_example(path)
    assert client.post(path, json=body, headers=headers).status_code == 202
    assert_documented(path, client.post(path, json=body | {"priority": 5}, headers=headers), 422)


@every_route
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff"])
def test_a_body_that_is_no_json(client: httpx.Client, path: str, body: bytes) -> None:
    answer = client.post(path, content=body)
    assert_documented(path, answer, 422 if answer.status_code == 422 else 400)
