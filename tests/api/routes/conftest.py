"""An API with two keys, on the Redis and the payload store of a Bench, which runs its batches."""

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
from tests.api.batches.conftest import bench, fast
from tests.api.batches.support import REGISTRY, Bench
from tests.api.support import http

__all__ = ["bench", "fast"]

MAX_FILE_BYTES = 2000


@dataclass
class Api:
    """Two clients of one API: the owner of everything, and another key."""

    mine: httpx.AsyncClient
    other: httpx.AsyncClient

    async def upload(self, content: bytes = b"{}\n", filename: str = "in.jsonl", **fields: str) -> dict[str, Any]:
        """Upload a file for batches."""
        data = {"purpose": "batch"} | fields
        response = await self.mine.post("/v1/files", files={"file": (filename, content)}, data=data)
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    async def create_batch(self, content: bytes = b"{}\n", **fields: Any) -> dict[str, Any]:
        """Upload a file, and create a batch that reads it."""
        file = await self.upload(content)
        body = {"input_file_id": file["id"], "endpoint": "/v1/rerank", "completion_window": "24h"} | fields
        response = await self.mine.post("/v1/batches", json=body)
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    async def create_job(self, count: int = 3, **fields: Any) -> str:
        """Create a job of many requests, and return its id."""
        requests = [{"custom_id": f"r{number}", "query": "q", "documents": ["a"]} for number in range(1, count + 1)]
        response = await self.mine.post("/v1/jobs", json={"requests": requests} | fields)
        assert response.status_code == 202, response.text
        return str(response.json()["id"])


@pytest.fixture
async def api(
    redis_url: str, async_client: redis.asyncio.Redis, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Api]:
    monkeypatch.setattr("api.routes.bulk_jobs.EVENT_SECONDS", 0.02)
    monkeypatch.setattr("api.background_tasks._CANCEL_AGAIN_SECONDS", 0.02)
    settings = ApiSettings(
        redis_url=redis_url,
        payloads=str(tmp_path / "payloads"),
        batch_runner="separate",
        max_file_bytes=MAX_FILE_BYTES,
        max_body_bytes=4096,
        webhook_networks="127.0.0.0/8",
    )
    store = KeyStore(async_client)
    keys = [await store.create(name) for name in ("mine", "other")]
    app = create_app(settings, REGISTRY)
    async with app.router.lifespan_context(app), http(app) as mine, http(app) as other:
        for client, key in zip((mine, other), keys, strict=True):
            client.headers["Authorization"] = f"Bearer {key}"
        yield Api(mine, other)


def error_of(response: httpx.Response) -> tuple[int, str | None]:
    """The status, and the field that the error names. Every error has one sentence."""
    error = response.json()["error"]
    assert error["message"] == response.json()["message"]
    assert "\n" not in error["message"]
    return response.status_code, error["param"]
