"""Causes the documented errors at the path of every dialect, and compares the responses with the OpenAPI document.

tests/api/dialects covers the errors that a test cannot cause in a running service, such as a failing engine.
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
from shared.owner_limits import DEFAULT_TERMS, OwnerLimits, OwnerTerms
from shared.store.client import connect_async
from tests.stacks import PANDA, client_of, running, write_models
from tests.wire.support import assert_documented, every_rerank_path, first_example


@pytest.fixture(scope="module")
def strict_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a service that scores slowly, waits briefly and accepts only small bodies."""
    models = write_models(tmp_path_factory.mktemp("models"), engine_args={"delay_seconds": 3.0})
    environment = {
        "RERANKQ_MODELS_FILE": models,
        "RERANKQ_WAIT_SECONDS": "0.1",
        "RERANKQ_MAX_BODY_BYTES": "2048",
    }
    with running(environment=environment) as stack, client_of(stack) as opened:
        yield opened


@pytest.fixture(scope="module")
def broken_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a service whose model cannot be loaded."""
    folder: Path = tmp_path_factory.mktemp("broken")
    environment = {"RERANKQ_MODELS_FILE": write_models(folder, engine_args={"delay_seconds": "soon"})}
    with running(engine=None, ready=False, environment=environment) as stack, client_of(stack) as opened:
        wait_until(lambda: any("failure" in model for model in opened.get("/ready").json()["models"].values()))
        yield opened


@pytest.fixture(scope="module")
def anonymous_client() -> Iterator[httpx.Client]:
    """A client without a key, of a service that requires one."""
    with running() as stack, client_of(stack) as opened:
        asyncio.run(make_key(stack))
        wait_until(lambda: opened.get("/v1/models").status_code == 401)
        yield opened


async def make_key(stack: Stack, terms: OwnerTerms = DEFAULT_TERMS) -> str:
    async with connect_async(stack.redis_url) as store:
        return await KeyStore(store).create("test", terms)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError("the condition did not become true")


@pytest.fixture(scope="module")
def limited_client() -> Iterator[httpx.Client]:
    """A client whose key may send one request in ten minutes, and has sent it."""
    with running() as stack, client_of(stack) as opened:
        key = asyncio.run(make_key(stack, OwnerTerms(limits=OwnerLimits(requests_per_second=1 / 600))))
        opened.headers["Authorization"] = f"Bearer {key}"
        wait_until(lambda: httpx.get(f"{stack.url}/v1/models").status_code == 401)
        opened.post("/v1/rerank", json=PANDA).raise_for_status()
        yield opened


@pytest.fixture(scope="module")
def overloaded_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a service that accepts one job at a time, and has one that takes long."""
    models = write_models(tmp_path_factory.mktemp("models"), engine_args={"delay_seconds": 300.0})
    environment = {"RERANKQ_MODELS_FILE": models, "RERANKQ_MAX_PENDING_JOBS": "1"}
    with running(environment=environment) as stack, client_of(stack) as opened:
        assert opened.post("/v1/rerank", json=PANDA, headers={"Prefer": "respond-async"}).status_code == 202
        yield opened


@every_rerank_path
def test_exceeded_key_limit_is_429(limited_client: httpx.Client, path: str) -> None:
    response = limited_client.post(path, json=first_example(path))
    assert_documented(path, response, 429)
    assert 590 <= int(response.headers["retry-after"]) <= 600
    assert response.headers["ratelimit-policy"] == '"requests";q=1;w=600'
    assert response.headers["ratelimit"] == f'"requests";r=0;t={response.headers["retry-after"]}'


@every_rerank_path
def test_overload_is_503(overloaded_client: httpx.Client, path: str) -> None:
    response = overloaded_client.post(path, json=first_example(path))
    assert_documented(path, response, 503)
    assert int(response.headers["retry-after"]) >= 1


@every_rerank_path
def test_wait_timeout_is_504(strict_client: httpx.Client, path: str) -> None:
    response = strict_client.post(path, json=first_example(path))
    assert_documented(path, response, 504)
    assert int(response.headers["retry-after"]) >= 1
    strict_client.post(f"{response.headers['location']}/cancel")


@every_rerank_path
def test_too_large_body_is_413(strict_client: httpx.Client, path: str) -> None:
    assert_documented(path, strict_client.post(path, content=b" " * 3000), 413)


@every_rerank_path
def test_model_that_failed_to_start_is_503(broken_client: httpx.Client, path: str) -> None:
    response = broken_client.post(path, json=first_example(path))
    assert_documented(path, response, 503)
    assert int(response.headers["retry-after"]) >= 1


@every_rerank_path
def test_missing_api_key_is_401(anonymous_client: httpx.Client, path: str) -> None:
    response = anonymous_client.post(path, json=first_example(path))
    assert_documented(path, response, 401)
    assert response.headers["www-authenticate"] == "Bearer"


@every_rerank_path
def test_unknown_model_has_the_dialects_status(client: httpx.Client, path: str) -> None:
    body = first_example(path) | {"model": "nope"}
    status = dialect_for_path(path).status_of(ModelNotFound("no"))
    assert_documented(path, client.post(path, json=body), status)


@every_rerank_path
def test_reused_idempotency_key_is_422(client: httpx.Client, path: str) -> None:
    headers = {"Idempotency-Key": uuid4().hex, "Prefer": "respond-async"}
    body = first_example(path)
    assert client.post(path, json=body, headers=headers).status_code == 202
    assert_documented(path, client.post(path, json=body | {"priority": 5}, headers=headers), 422)


@every_rerank_path
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff"])
def test_invalid_json_is_400_or_422(client: httpx.Client, path: str, body: bytes) -> None:
    response = client.post(path, content=body)
    assert_documented(path, response, 422 if response.status_code == 422 else 400)
