"""The cluster's Redis: a real one, started by the container's own command with the ConfigMap's own file."""

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
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """Its host and port. The container's folders are folders of this test; nothing else is changed."""
    folders = {path: tmp_path_factory.mktemp(path.strip("/").replace("/", "-")) for path in mounted()}
    configuration = named(MANIFESTS, "ConfigMap", "rerankq-redis")["data"]["redis.conf"]
    port = free_port()
    (folders["/etc/redis"] / "redis.conf").write_text(here(configuration, folders) + f"\nport {port}\n")
    *shell, script = CONTAINER["command"]
    assert shell == ["sh", "-c"]
    script = here(script, folders).replace("redis-server ", f"{find_binary()} ")
    environment = dict(os.environ) | {"REDISCLI_AUTH": PASSWORD}
    child = ChildProcess("redis", [*shell, script], folders["/data"] / "log", environment)
    yield "127.0.0.1", port
    stop_all([child], grace_seconds=5)


def mounted() -> list[str]:
    return [mount["mountPath"] for mount in CONTAINER["volumeMounts"]]


def here(text: str, folders: dict[str, Path]) -> str:
    for path, folder in folders.items():
        text = text.replace(path, str(folder))
    return text


def connected(started: tuple[str, int], password: str | None) -> redis.Redis:
    host, port = started
    retry = redis.retry.Retry(redis.backoff.ConstantBackoff(0.1), 50)
    return redis.Redis(host=host, port=port, password=password, retry=retry, decode_responses=True)


def test_it_forgets_nothing(started: tuple[str, int]) -> None:
    with connected(started, PASSWORD) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("appendfsync") == {"appendfsync": "everysec"}
        # The append-only file is the one copy; a second, by fork, would take as much memory again for nothing.
        assert client.config_get("save") == {"save": ""}


def test_it_asks_for_the_password(started: tuple[str, int]) -> None:
    with connected(started, None) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


def test_its_password_is_the_secrets_and_stands_on_no_command_line() -> None:
    environment = environment_of(named(MANIFESTS, "StatefulSet", "rerankq-redis"))
    assert environment == {"REDISCLI_AUTH": {"secretKeyRef": {"name": "rerankq-redis", "key": "password"}}}
    assert "exec redis-server /etc/redis/redis.conf" in CONTAINER["command"][-1]


def test_it_is_full_before_its_container_is() -> None:
    configuration = named(MANIFESTS, "ConfigMap", "rerankq-redis")["data"]["redis.conf"]
    ((most, unit),) = re.findall(r"^maxmemory (\d+)(\w+)$", configuration, re.MULTILINE)
    ((limit, limit_unit),) = re.findall(r"^(\d+)(\w+)$", CONTAINER["resources"]["limits"]["memory"])
    assert int(most) * MEGABYTES[unit] <= 0.75 * int(limit) * MEGABYTES[limit_unit]
