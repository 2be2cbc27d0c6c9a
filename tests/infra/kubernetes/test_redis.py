"""A real Redis, started with the container's command and the ConfigMap's configuration."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from infra.local.redis_server import find_binary, free_port
from shared.processes import ChildProcess, stop_all
from tests.infra.kubernetes.manifests import FOLDER, container_of, environment_of, named, read

PASSWORD = "a password"
MANIFESTS = read(FOLDER / "base/redis.yaml")
CONTAINER = container_of(named(MANIFESTS, "StatefulSet", "rerankq-redis"))
MEGABYTES = {"mb": 1, "gb": 1024, "Mi": 1, "Gi": 1024}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """Start Redis and yield its host and port. The container's paths are replaced by temporary folders."""
    mounts = [mount["mountPath"] for mount in CONTAINER["volumeMounts"]]
    folders = {path: tmp_path_factory.mktemp(path.strip("/").replace("/", "-")) for path in mounts}
    configuration = named(MANIFESTS, "ConfigMap", "rerankq-redis")["data"]["redis.conf"]
    port = free_port()
    (folders["/etc/redis"] / "redis.conf").write_text(replace_paths(configuration, folders) + f"\nport {port}\n")
    *shell, script = CONTAINER["command"]
    assert shell == ["sh", "-c"]
    script = replace_paths(script, folders).replace("redis-server ", f"{find_binary()} ")
    environment = dict(os.environ) | {"REDISCLI_AUTH": PASSWORD}
    child = ChildProcess("redis", [*shell, script], folders["/data"] / "log", environment)
    yield "127.0.0.1", port
    stop_all([child], grace_seconds=5)


def replace_paths(text: str, folders: dict[str, Path]) -> str:
    for path, folder in folders.items():
        text = text.replace(path, str(folder))
    return text


def connect(address: tuple[str, int], password: str | None) -> redis.Redis:
    host, port = address
    retry = redis.retry.Retry(redis.backoff.ConstantBackoff(0.1), 50)
    return redis.Redis(host=host, port=port, password=password, retry=retry, decode_responses=True)


def test_accepted_jobs_are_persistent_and_never_evicted(address: tuple[str, int]) -> None:
    with connect(address, PASSWORD) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("appendfsync") == {"appendfsync": "everysec"}
        # Snapshots are not needed, and their fork could double the memory use.
        assert client.config_get("save") == {"save": ""}


def test_password_is_required(address: tuple[str, int]) -> None:
    with connect(address, None) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


def test_password_is_read_from_the_secret_and_not_passed_as_an_argument() -> None:
    environment = environment_of(named(MANIFESTS, "StatefulSet", "rerankq-redis"))
    assert environment == {"REDISCLI_AUTH": {"secretKeyRef": {"name": "rerankq-redis", "key": "password"}}}
    assert "exec redis-server /etc/redis/redis.conf" in CONTAINER["command"][-1]


def test_maxmemory_is_below_the_containers_limit() -> None:
    configuration = named(MANIFESTS, "ConfigMap", "rerankq-redis")["data"]["redis.conf"]
    ((maximum, unit),) = re.findall(r"^maxmemory (\d+)(\w+)$", configuration, re.MULTILINE)
    ((limit, limit_unit),) = re.findall(r"^(\d+)(\w+)$", CONTAINER["resources"]["limits"]["memory"])
    assert int(maximum) * MEGABYTES[unit] <= 0.75 * int(limit) * MEGABYTES[limit_unit]
