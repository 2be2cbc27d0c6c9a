"""An API with two keys, whose model is an endpoint under its name and under an alias with a slash."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis.asyncio

from api.app import create_app
from api.auth.key_store import KeyStore
from api.settings import ApiSettings
from shared.models import ModelRegistry, ModelSpec
from tests.api.support import Worker, http
from tests.shared.support import MODEL, make_scores

ALIAS = "BAAI/bge-reranker-v2-m3"
ENDPOINT = f"/runpod/v2/{MODEL}"
DOCS = {"query": "q", "docs": ["a", "b"]}
REGISTRY = ModelRegistry([ModelSpec(name=MODEL, aliases=[ALIAS]), ModelSpec(name="another-model")])


@dataclass
class Api:
    """Clients with two keys; `worker` scores one job at a time."""

    mine: httpx.AsyncClient
    other: httpx.AsyncClient
    key: str
    worker: Worker

    async def run(self, given: Any = DOCS, path: str = f"{ENDPOINT}/run", **fields: Any) -> str:
        """Create a job, and return its id."""
        response = await self.mine.post(path, json={"input": given} | fields)
        assert response.status_code == 200, response.text
        return str(response.json()["id"])

    async def read(self, job_id: str, operation: str = "status") -> dict[str, Any]:
        """What a GET of the operation returns."""
        response = await self.mine.get(f"{ENDPOINT}/{operation}/{job_id}")
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    async def post(self, operation: str) -> dict[str, Any]:
        """What a POST without a body returns."""
        response = await self.mine.post(f"{ENDPOINT}/{operation}")
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found


@pytest.fixture
async def api(
    redis_url: str, async_client: redis.asyncio.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Api]:
    monkeypatch.setattr("api.background_tasks._CANCEL_AGAIN_SECONDS", 0.02)
    settings = ApiSettings(
        redis_url=redis_url, payloads=str(tmp_path / "payloads"), batch_runner="separate", wait_seconds=2.0
    )
    store = KeyStore(async_client)
    keys = [await store.create(name) for name in ("mine", "other")]
    app = create_app(settings, REGISTRY)
    async with app.router.lifespan_context(app), http(app) as mine, http(app) as other:
        for client, key in zip((mine, other), keys, strict=True):
            client.headers["Authorization"] = f"Bearer {key}"
        yield Api(mine, other, keys[0], Worker(redis_url, make_scores(0.25, 0.75)))


def error_of(response: httpx.Response) -> tuple[int, str | None]:
    """The status, and the field that the error names."""
    body = response.json()
    assert set(body) == {"error", "type", "param"}
    assert "\n" not in body["error"]
    return response.status_code, body["param"]
