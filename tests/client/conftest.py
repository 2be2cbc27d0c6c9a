"""A fast and a slow service, and both clients."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from client import AsyncClient, Client
from infra.local.stack import Stack
from tests.stacks import running, write_models

SLOW_SECONDS = 1.0

ClientClass = Callable[..., Any]


@pytest.fixture(scope="package")
def service() -> Iterator[Stack]:
    with running() as stack:
        yield stack


@pytest.fixture(scope="package")
def slow_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Scoring a request takes SLOW_SECONDS. The API waits at most a fifth of that."""
    models = write_models(tmp_path_factory.mktemp("models"), engine_args={"delay_seconds": SLOW_SECONDS})
    environment = {"RERANKQ_MODELS_FILE": models, "RERANKQ_WAIT_SECONDS": str(SLOW_SECONDS / 5)}
    with running(environment=environment) as stack:
        yield stack


class BlockingAsyncClient:
    """An AsyncClient with blocking methods, so that one test can cover both clients."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncClient(*arguments, **options)

    def __enter__(self) -> "BlockingAsyncClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._client.close())
        self._runner.close()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        return lambda *arguments, **options: self._runner.run(method(*arguments, **options))

    def rerank_many(self, *arguments: Any, **options: Any) -> list[Any]:
        return self._collect(self._client.rerank_many(*arguments, **options))

    def batch_results(self, batch_id: str) -> list[Any]:
        return self._collect(self._client.batch_results(batch_id))

    def iter_results(self, job_id: str, **options: Any) -> list[Any]:
        return self._collect(self._client.iter_results(job_id, **options))

    def _collect(self, items: AsyncIterator[Any]) -> list[Any]:
        async def collect() -> list[Any]:
            return [item async for item in items]

        return self._runner.run(collect())


@pytest.fixture(params=[Client, BlockingAsyncClient], ids=["blocking", "asynchronous"])
def client_class(request: pytest.FixtureRequest) -> ClientClass:
    """Each client class; call it to create a client."""
    kind: ClientClass = request.param
    return kind
