"""What only the store in S3 does: multipart uploads and settings from the environment."""

import subprocess
import sys
import time

import pytest

from api.payloads.s3 import S3Store
from infra.local.redis_server import free_port
from infra.local.stack import ROOT
from shared.errors import ConfigurationError, PayloadsUnavailable
from tests.api.payloads.support import (
    MIB,
    in_an_hour,
    memory_limit,
    objects,
    read,
    repeated,
    write,
    write_and_be_killed,
)

NO_REDIS = "redis://127.0.0.1:1/0"


async def assert_unavailable(store: S3Store) -> None:
    """Every operation fails with the same error, without details that a caller must not see."""
    for length in (0, 100 * MIB):
        with pytest.raises(PayloadsUnavailable, match="cannot be used now"):
            await store.write("file", repeated(bytes(MIB), length // MIB), expires_at=in_an_hour())
    for operation in (read(store, "file"), objects(store), store.delete("file"), store.remove_abandoned(0)):
        with pytest.raises(PayloadsUnavailable):
            await operation


async def test_prefixes_separate_stores(s3_location: str) -> None:
    one, other = S3Store(f"{s3_location}/one"), S3Store(f"{s3_location}/other/")
    await write(one, "file", b"one")
    await write(other, "file", b"other")
    assert [await read(store, "file") for store in (one, other)] == [b"one", b"other"]
    assert list(await objects(one)) == ["file"]


async def test_only_unfinished_uploads_of_the_prefix_are_removed(s3_location: str) -> None:
    write_and_be_killed(f"{s3_location}/one", NO_REDIS)
    write_and_be_killed(f"{s3_location}/one", NO_REDIS)
    assert await S3Store(f"{s3_location}/on").remove_abandoned(0) == 0
    assert await S3Store(f"{s3_location}/one").remove_abandoned(0) == 2


async def test_without_an_access_key_no_upload_is_removed(s3_location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_and_be_killed(s3_location, NO_REDIS)
    with monkeypatch.context() as environment:
        environment.delenv("AWS_ACCESS_KEY_ID")
        environment.delenv("AWS_SECRET_ACCESS_KEY")
        assert await S3Store(s3_location).remove_abandoned(0) == 0
    assert await S3Store(s3_location).remove_abandoned(0) == 1


async def test_unreachable_server_is_reported_within_seconds(s3_location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    started = time.monotonic()
    with pytest.raises(PayloadsUnavailable, match="cannot be used now"):
        await write(S3Store(s3_location), "file", b"data")
    assert time.monotonic() - started < 10


async def test_wrong_key_is_reported(s3_location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    await assert_unavailable(S3Store(s3_location))


async def test_missing_bucket_is_reported(s3_location: str) -> None:
    store = S3Store("s3://missing-bucket/folder")
    for length in (1, 100):
        with pytest.raises(PayloadsUnavailable):
            await store.write("file", repeated(bytes(MIB), length), expires_at=in_an_hour())
    with pytest.raises(PayloadsUnavailable):
        await objects(store)


async def test_empty_variables_count_as_unset(s3_location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3", "AWS_ALLOW_HTTP"):
        monkeypatch.setenv(name, "")
    store = S3Store(s3_location)
    await write(store, "file", b"data")
    assert await read(store, "file") == b"data"
    assert await store.remove_abandoned(0) == 0


@pytest.mark.parametrize(
    "url", ["s3://", "s3:///prefix", "s3://b u/x", "s3://bucket/a b", "s3://bucket/../x", "s3://bucket/x?y=1"]
)
def test_invalid_location_is_rejected(url: str) -> None:
    with pytest.raises(ConfigurationError, match="RERANKQ_PAYLOADS"):
        S3Store(url)


def test_invalid_variable_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "perhaps")
    with pytest.raises(ConfigurationError, match="perhaps"):
        S3Store("s3://bucket/prefix")


def test_missing_package_names_the_extra() -> None:
    program = (
        "import sys; sys.modules['obstore'] = None\n"
        "from api.payloads.factory import open_payload_store\n"
        "from shared.errors import ConfigurationError\n"
        "try: open_payload_store('s3://bucket', None)\n"
        "except ConfigurationError as error: print(error.message)\n"
    )
    output = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, timeout=60, check=True)
    assert b"pip install '.[s3]'" in output.stdout


def test_obstore_is_imported_only_for_s3() -> None:
    program = "import sys, api.__main__, api.payloads.factory; sys.exit('obstore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60, check=False).returncode == 0


async def test_memory_does_not_grow_with_the_object(s3_location: str) -> None:
    store = S3Store(s3_location)
    with memory_limit(64 * MIB):
        await store.write("file", repeated(bytes(65_536), 3200), expires_at=in_an_hour())
        assert sum([len(chunk) async for chunk in store.read("file")]) == 200 * MIB
