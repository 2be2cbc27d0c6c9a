"""Services for the client, and the client in both forms."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from client import AsyncClient, Client
from infra.local.stack import Stack
from tests.stacks import running, write_models

SLOW_SECONDS = 1.0

Opener = Callable[..., Any]


@pytest.fixture(scope="package")
def service() -> Iterator[Stack]:
    with running() as stack:
        yield stack


@pytest.fixture(scope="package")
def slow_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Each scoring takes SLOW_SECONDS, and the API itself waits no longer than a fifth of that."""
    models = write_models(tmp_path_factory.mktemp("models"), engine_args={"delay_seconds": SLOW_SECONDS})
    environment = {"RERANKQ_MODELS_FILE": models, "RERANKQ_WAIT_SECONDS": str(SLOW_SECONDS / 5)}
    with running(environment=environment) as stack:
        yield stack


class Blocked:
    """An AsyncClient whose methods block, so that one test can be of both clients."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncClient(*arguments, **options)

    def __enter__(self) -> "Blocked":
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._client.close())
        self._runner.close()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        return lambda *arguments, **options: self._runner.run(method(*arguments, **options))

    def rerank_many(self, *arguments: Any, **options: Any) -> list[Any]:
        async def collected() -> list[Any]:
            return [outcome async for outcome in self._client.rerank_many(*arguments, **options)]

        return self._runner.run(collected())


@pytest.fixture(params=[Client, Blocked], ids=["blocking", "asynchronous"])
def opener(request: pytest.FixtureRequest) -> Opener:
    """Makes a client of either form."""
    made: Opener = request.param
    return made
