"""Fixtures for all tests: a real Redis on a free port, which ends with the test run."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from infra.local import redis_server as local_redis
from infra.local.redis_server import start_redis
from shared.processes import stop_all
from tests.logs import LogLines, log_lines

# The developer's settings must not affect tests.
for variable in [name for name in os.environ if name.startswith("RERANKQ_") or name == "REDIS_URL"]:
    del os.environ[variable]

# Under nohup or as a background job, pytest starts with these signals ignored, and its child processes inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--store",
        choices=("valkey", "redis"),
        default="valkey",
        help="the server that tests start: the embedded Valkey (default), or the redis-server on the PATH",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--store") == "redis":
        binary = shutil.which("redis-server")
        if binary is None:
            pytest.exit("--store redis needs a redis-server on the PATH (Debian: apt-get install redis-server)", 4)
        local_redis.find_binary = lambda: binary


@pytest.fixture(scope="session", autouse=True)
def state_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Files that tests store end with the test run's temporary folder."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture
def logged() -> Iterator[LogLines]:
    """What is logged in this process during the test."""
    with log_lines() as lines:
        yield lines


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real Redis that runs during the whole test run."""
    folder: Path = tmp_path_factory.mktemp("redis")
    child, url = start_redis(folder, os.environ)
    yield url
    stop_all([child], grace_seconds=5)


@pytest.fixture
def redis_url(redis_server: str) -> Iterator[str]:
    """The URL of the same Redis, emptied before this test."""
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
        yield redis_server


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    """A blocking client that returns bytes."""
    with redis.Redis.from_url(redis_url) as client:
        yield client
