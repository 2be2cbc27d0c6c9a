"""A store of each kind."""

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis.asyncio

from api.payloads.base import PayloadStore
from api.payloads.factory import open_payload_store
from tests.s3 import s3_location, s3_server
from tests.shared.conftest import async_client

__all__ = ["async_client", "s3_location", "s3_server"]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that does not exist yet, in one that does not either."""
    yield tmp_path / "state" / "payloads"
    shutil.rmtree(tmp_path / "state", ignore_errors=True)


@pytest.fixture(params=["folder", "s3", "redis"])
def location(request: pytest.FixtureRequest) -> str:
    """Where an empty store of each kind is."""
    if request.param == "redis":
        return "redis"
    return str(request.getfixturevalue("s3_location" if request.param == "s3" else "folder"))


@pytest.fixture
async def payloads(location: str, async_client: redis.asyncio.Redis) -> AsyncIterator[PayloadStore]:
    """An empty store of each kind."""
    store = open_payload_store(location, async_client)
    yield store
    await store.close()
