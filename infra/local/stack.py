"""Runs Redis, the API, and the workers or their autoscaler as processes: starts, watches and stops them together.

A process that ends before the stack is ready is an error (`check`); afterwards `restart_ended` starts it again.
"""

import json
import os
import shutil
import socket
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from redis.exceptions import RedisError

from infra.local.redis_server import free_port, spawn_redis, url_of, wait_until_it_accepts
from infra.local.supervisor import Supervisor
from shared.errors import ConfigurationError
from shared.keys import pool_keys
from shared.models import ModelSpec, load_models
from shared.pools.heartbeats import summarize
from shared.processes import ChildProcess, describe_exit, stop_all
from shared.store.client import connect

ROOT = Path(__file__).resolve().parents[2]
MODELS_FILE = ROOT / "infra" / "models.yaml"
DEFAULT_PORT = 8000
STOP_SECONDS = 20.0
DRAIN_SECONDS = "5"
"""Well below STOP_SECONDS. A long drain has no use: the whole stack stops, so no other worker continues the shards."""
_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Options:
    """What to run. None selects a default. `environment` is added to every process's environment.

    With `pool`, an autoscaler runs, and these settings override those of every model's own `pool` (see
    shared.models.PoolSettings); an empty mapping overrides none. Without it, exactly `workers` workers run.
    `processes` serve the API.
    """

    host: str = "127.0.0.1"
    port: int | None = None
    redis_url: str | None = None
    model: str | None = None
    engine: str | None = None
    workers: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)
    pool: Mapping[str, Any] | None = None
    processes: int | None = None


class StackError(Exception):
    """A process did not start, or ended; the message has the last lines of its log."""


class Stack:
    """The whole service, as a context manager: leaving it stops every process and deletes every file."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._supervisor = Supervisor()
        self.redis_url = options.redis_url or ""
        self.port = choose_port(options.host, options.port)

    @property
    def url(self) -> str:
        host = "127.0.0.1" if self._options.host in ("0.0.0.0", "::") else self._options.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    def __enter__(self) -> "Stack":
        self._folder = Path(tempfile.mkdtemp(prefix="rerankq-"))
        # Temporary files of the processes are deleted with the folder.
        self._environment = (
            {"RERANKQ_DRAIN_SECONDS": DRAIN_SECONDS}
            | os.environ
            | {
                "TMPDIR": str(self._folder),
                "PYTHONPATH": str(ROOT),
                "PYTHONUNBUFFERED": "1",
                # Files end with this stack's Redis, which has their records.
                "RERANKQ_PAYLOADS": str(self._folder / "payloads"),
                **self._options.environment,
            }
        )
        return self

    def __exit__(self, *_: object) -> None:
        children = self._supervisor.children
        try:
            stop_all([child for child in children if child.name != "redis"], STOP_SECONDS)
        finally:
            # Last: the other processes write to it when they stop.
            stop_all([child for child in children if child.name == "redis"], STOP_SECONDS)
            shutil.rmtree(self._folder, ignore_errors=True)

    def start_redis(self) -> None:
        """Start the embedded Redis, unless a URL was given. Raises ConfigurationError."""
        if not self.redis_url:
            port = free_port()
            child = self._supervisor.start("redis", lambda: spawn_redis(self._folder, self._environment, port))
            wait_until_it_accepts(child, port)
            self.redis_url = url_of(port)

    def start_service(self) -> ModelSpec:
        """Start the API, and the workers or the autoscaler. Returns the first model. Raises ConfigurationError."""
        models_file = self._models_file()
        model = self._model = load_models(models_file).default
        common = {"REDIS_URL": self.redis_url, "RERANKQ_MODELS_FILE": str(models_file)}
        address = ["--host", self._options.host, "--port", str(self.port)]
        processes = ["--processes", str(self._options.processes)] if self._options.processes else []
        self._spawn("api", ["serve", *address, *processes], common)
        if self._options.pool is not None:
            self._spawn("worker.autoscaler", [], common, "autoscaler")
            return model
        for number in range(1, self._options.workers + 1):
            engine = ["--engine", self._options.engine] if self._options.engine else []
            self._spawn("worker", ["--model", model.name, *engine], common, f"worker-{number}")
        return model

    def wait_ready(self, timeout_seconds: float) -> dict[str, Any]:
        """Poll /ready until it succeeds; returns its body. Raises StackError when a process ends, or at the timeout."""
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            self.check()
            status, body = get_json(f"{self.url}/ready")
            if (
                status == 200 or (self._options.pool is not None and body.get("store") == "reachable")
            ) and self._all_ready():
                return body
            time.sleep(_POLL_SECONDS)
        raise StackError(f"not ready within {timeout_seconds:g} s:\n{self._supervisor.children[-1].last_lines()}")

    def log(self, name: str) -> Path:
        """The path of a process's log."""
        return self._folder / f"{name}.log"

    def child(self, name: str) -> ChildProcess:
        """A process by name: api, worker-1, redis ... Raises KeyError."""
        return self._supervisor.child(name)

    def check(self) -> None:
        """Raise StackError when a process has ended."""
        for child in self._supervisor.children:
            if (status := child.exit_status) is not None:
                raise StackError(f"{child.name} {describe_exit(status)}:\n{child.last_lines()}")

    def restart_ended(self) -> list[str]:
        """Restart processes that have ended. Returns one sentence for each. Does not wait."""
        return self._supervisor.restart_ended()

    def _all_ready(self) -> bool:
        """Whether the fixed workers are ready."""
        if self._options.pool is not None:
            return True
        with suppress(RedisError), connect(self.redis_url) as client:
            beats: Mapping[bytes, bytes] = client.hgetall(pool_keys.workers(self._model.name))
            return summarize(beats, time.time()).ready >= self._options.workers
        return False

    def _spawn(self, package: str, arguments: list[str], variables: dict[str, str], name: str = "") -> None:
        name = name or package
        command = [sys.executable, "-m", package, *arguments]
        environment = self._environment | variables
        self._supervisor.start(name, lambda: ChildProcess(name, command, self.log(name), environment))

    def _models_file(self) -> Path:
        """The models file to use: the configured one, or one generated from the options.

        The engine and the pool settings are written to it, because the API, the autoscaler and the workers must agree.
        """
        configured = self._environment.get("RERANKQ_MODELS_FILE")
        options = self._options
        if options.model is None and configured and options.engine is None and not options.pool:
            return Path(configured)
        if options.model is None and configured:
            entries = [spec.model_dump() for spec in load_models(Path(configured)).specs]
        else:
            entries = [self._model_entry(options.model)]
        if options.engine is not None:
            # With a named engine only the first model is served.
            entries = [entries[0] | {"engine": options.engine}]
        for entry in entries:
            entry["pool"] = entry.get("pool", {}) | dict(options.pool or {})
        path = self._folder / "models.yaml"
        path.write_text(yaml.safe_dump({"models": entries}))
        return path

    @staticmethod
    def _model_entry(model: str | None) -> dict[str, Any]:
        shipped = load_models(MODELS_FILE)
        names = {name for spec in shipped.specs for name in (spec.name, *spec.aliases)}
        if model is None or model in names:
            return shipped.resolve(model).model_dump()
        if Path(model).is_dir():
            folder = Path(model).resolve()
            return {"name": folder.name, "source": str(folder)}
        return {"name": model, "source": model}


def choose_port(host: str, wanted: int | None) -> int:
    """The wanted port; without one 8000, or a free port. Raises ConfigurationError when the wanted port is taken."""
    if wanted == 0:
        return free_port(host)
    port = wanted or DEFAULT_PORT
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if wanted is None:
                return free_port(host)
            raise ConfigurationError(f"cannot listen on {host}:{port}: {error.strerror}", param="port") from error
    return port


def get_json(url: str) -> tuple[int, dict[str, Any]]:
    """Status and body of a GET; status 0 when the connection fails."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
    except (OSError, ValueError):
        return 0, {}
