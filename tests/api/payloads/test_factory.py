"""Which store a location opens."""

from pathlib import Path

import pytest
import redis.asyncio

from api.payloads.factory import default_location, open_payload_store
from api.payloads.folder import FolderStore
from api.payloads.redis_store import RedisStore
from api.payloads.s3 import S3Store
from shared.errors import ConfigurationError
from tests.api.payloads.support import files_in, write


@pytest.mark.parametrize(
    ("location", "kind"), [("redis", RedisStore), ("s3://bucket/prefix", S3Store), ("s3://bucket", S3Store)]
)
def test_location_selects_the_store(location: str, kind: type, async_client: redis.asyncio.Redis) -> None:
    assert type(open_payload_store(location, async_client)) is kind


@pytest.mark.parametrize("path", ["{folder}/a", "~/a", "a", "./a", "a/b c"])
async def test_path_selects_a_folder(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, async_client: redis.asyncio.Redis
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    store = open_payload_store(path.format(folder=tmp_path), async_client)
    assert type(store) is FolderStore
    await write(store, "file", b"data")
    assert [Path(found).name for found in files_in(tmp_path)] == ["file"]


@pytest.mark.parametrize("location", ["", "gs://bucket", "file:///x", "http://host", "redis://host", "s3:bucket"])
def test_other_location_is_rejected(location: str, async_client: redis.asyncio.Redis) -> None:
    with pytest.raises(ConfigurationError, match="RERANKQ_PAYLOADS"):
        open_payload_store(location, async_client)


@pytest.mark.parametrize(
    ("state", "folder"), [("/var/state", "/var/state"), ("", "/home/me/.local/state"), ("x", "/home/me/.local/state")]
)
def test_default_is_the_folder_for_state(state: str, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert default_location({"XDG_STATE_HOME": state}) == f"{folder}/rerankq/payloads"
