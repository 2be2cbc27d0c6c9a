"""What every test may use: a real Redis of its own, on a free port, gone with the test run."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from infra.local.redis_server import start_redis
from shared.processes import stop_all

# Nothing of the user's own set-up may leak into a test.
for variable in [name for name in os.environ if name.startswith("RERANKQ_") or name == "REDIS_URL"]:
    del os.environ[variable]

# Nor what it was started under: nohup, or a shell's background, has signals ignored, by all processes of the tests too.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real Redis that lives as long as the test run."""
    folder: Path = tmp_path_factory.mktemp("redis")
    child, url = start_redis(folder, os.environ)
    yield url
    stop_all([child], grace_seconds=5)


@pytest.fixture
def redis_url(redis_server: str) -> Iterator[str]:
    """The same Redis, emptied for this test."""
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
        yield redis_server


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    """A blocking client of bytes."""
    with redis.Redis.from_url(redis_url) as client:
        yield client
