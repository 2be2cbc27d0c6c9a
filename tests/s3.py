"""A real S3 server for tests: SeaweedFS, which comes as a wheel (Apache licence) and starts in two seconds.

It answers ranges and multipart uploads as S3 does; rclone's server answers ranges with a wrong status.
"""

import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

import pytest

from infra.local.redis_server import free_port
from shared.processes import ChildProcess, stop_all

_BUCKET = "payloads"
_KEY = {"AWS_ACCESS_KEY_ID": "test-key", "AWS_SECRET_ACCESS_KEY": "test-secret"}


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real S3 server with one bucket, which runs during the whole test run."""
    folder = tmp_path_factory.mktemp("s3")
    names = ("s3", "master", "filer", "volume", "admin")
    ports = {f"{name}.port{kind}": free_port() for name in names for kind in ("", ".grpc")}
    command = [str(Path(sys.executable).with_name("weed")), "-logtostderr", "mini", f"-dir={folder}", "-ip=127.0.0.1"]
    command += ["-ip.bind=127.0.0.1", f"-bucket={_BUCKET}", "-admin.ui=false", "-webdav=false"]
    command += [
        "-s3.autoCreateBucket=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        *(f"-{name}={port}" for name, port in ports.items()),
    ]
    child = ChildProcess("s3", command, folder / "log", {**os.environ, **_KEY, "HOME": str(folder)})
    try:
        wait_for_bucket(child, ports["s3.port"])
        yield f"http://127.0.0.1:{ports['s3.port']}"
    finally:
        stop_all([child], grace_seconds=0)
        shutil.rmtree(folder)  # pytest would keep some hundred MB


def wait_for_bucket(child: ChildProcess, port: int) -> None:
    """Wait until the server has created the bucket, which it does last."""
    deadline = time.monotonic() + 30
    while f"created bucket {_BUCKET}" not in child.log.read_text(errors="replace"):
        assert child.exit_status is None, child.last_lines()
        assert time.monotonic() < deadline, child.last_lines()
        time.sleep(0.05)
    socket.create_connection(("127.0.0.1", port), timeout=5).close()


@pytest.fixture
def s3_location(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty folder of the bucket, with the environment that leads to the server."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {**_KEY, "AWS_ENDPOINT_URL": s3_server, "AWS_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    return f"s3://{_BUCKET}/{token_hex(4)}/folder"
