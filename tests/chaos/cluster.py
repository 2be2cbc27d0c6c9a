"""A whole service as processes: Redis with an append-only file, two API processes, workers behind a link.

Whoever ends is started again by a supervisor of the cluster's own. Leaving the cluster ends every process by its pid
and removes its folder.
"""

import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from infra.local.redis_server import find_binary, free_port
from infra.local.stack import get_json
from tests.chaos.cases import POISON_WORD, SHARD_TOKENS
from tests.chaos.ledger_view import LedgerView
from tests.chaos.link import Link
from tests.chaos.processes import Process, stop
from tests.chaos.worker_start import CLOCK_VARIABLE, POISON_VARIABLE

MODEL = "chaos"
WAIT_SECONDS = 30.0
"""How long the API lets a caller wait."""
_TEND_SECONDS = 0.05
_READY_SECONDS = 60.0
_GRACE_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Size:
    """How large the cluster is. `keep`: leave the folder with the processes' logs."""

    apis: int = 2
    workers: int = 3
    concurrency: int = 4
    delay_seconds: float = 0.15
    result_seconds: float = 20.0
    keep: bool = False


@dataclass(slots=True)
class Slot:
    """A place for one process. What dies in it is replaced, unless it is `free`; `struck`: that was intended."""

    name: str
    spawn: Callable[["Slot"], Process]
    variables: dict[str, str] = field(default_factory=dict)
    process: Process | None = None
    free: bool = False
    struck: bool = False

    @property
    def pid(self) -> int:
        return self.process.pid if self.process else 0

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.exit_status is None

    def strike(self, number: signal.Signals) -> None:
        """Signal its process so that it ends."""
        if self.process is not None:
            self.struck = True
            self.process.send(number)


class ClusterError(Exception):
    """A part did not start; the message has the end of its log."""


class Cluster:
    """Use as a context manager, from a thread that lives as long: the processes' leashes hang on it."""

    def __init__(self, size: Size | None = None) -> None:
        self.size = size or Size()
        self.deaths: list[str] = []
        self.redis_port = free_port()
        self._redis: Process | None = None
        self._halted = threading.Event()
        self._released = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        self._lock = threading.RLock()

    def __enter__(self) -> "Cluster":
        self.folder = Path(tempfile.mkdtemp(prefix="rerankq-chaos-"))
        self.links: dict[str, Link] = {}
        self.workers: list[Slot] = []
        self.apis: list[Slot] = []
        self._views: list[LedgerView] = []
        self.view = self.view_again()
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._halted.set()
        with self._lock:
            served = [slot.process for slot in (*self.apis, *self.workers) if slot.process]
        try:
            stop(served, _GRACE_SECONDS)
            if self._redis is not None:
                stop([self._redis], _GRACE_SECONDS)
        finally:
            self._released.set()
            if self._supervisor.ident is not None:
                self._supervisor.join(_GRACE_SECONDS)
            for link in self.links.values():
                link.close()
            for view in self._views:
                view.close()
            if not self.size.keep:
                shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{port}" for port in self._api_ports]

    def view_again(self) -> LedgerView:
        """A view for another thread, closed with the cluster."""
        self._views.append(LedgerView(self.redis_port, MODEL))
        return self._views[-1]

    def ready_workers(self) -> int:
        """How many workers are up and have said so. Raises redis.RedisError."""
        ready = self.view.ready_pids()
        return sum(slot.alive and slot.pid in ready for slot in self.workers)

    def wait_ready(self) -> None:
        """Every API answers and every worker takes work. Raises ClusterError."""
        deadline = time.monotonic() + _READY_SECONDS
        while not self._all_ready():
            if time.monotonic() > deadline:
                logs = [slot.process.last_lines(6) for slot in (*self.apis, *self.workers) if slot.process]
                raise ClusterError("not ready:\n" + "\n---\n".join(logs))
            time.sleep(0.1)

    def start_redis(self) -> None:
        """Start Redis on what is in its file, and return when it answers. Raises ClusterError."""
        command = [find_binary(), "--port", str(self.redis_port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        command += ["--save", "", "--appendonly", "yes", "--appendfsync", "everysec"]
        command += ["--maxmemory-policy", "noeviction"]
        self._redis = Process("redis", command, self.folder / "redis.log", os.environ)
        deadline = time.monotonic() + _READY_SECONDS
        while not self.view.ping():
            if self._redis.exit_status is not None or time.monotonic() > deadline:
                raise ClusterError(f"Redis did not start:\n{self._redis.last_lines()}")
            time.sleep(0.05)

    def end_redis(self, number: signal.Signals) -> None:
        """Stop or kill Redis; it stays away until it is started again."""
        assert self._redis is not None
        self._redis.send(number)
        if not self._redis.wait(_GRACE_SECONDS):
            self._redis.kill()

    def replace(self, slot: Slot, variables: Mapping[str, str]) -> None:
        """End the slot's process, asking first, and have another one started with these variables."""
        with self._lock:
            slot.free = slot.struck = True
            process = slot.process
        if process is not None:
            stop([process], _GRACE_SECONDS * 3)
        with self._lock:
            slot.variables = dict(variables)
            slot.free = False

    def _start(self) -> None:
        self._write_models()
        self.start_redis()
        self.links = {"workers": Link(self.redis_port), "apis": Link(self.redis_port)}
        self._api_ports = [free_port() for _ in range(self.size.apis)]
        self.apis = [Slot(f"api-{number}", self._spawn_api) for number in range(self.size.apis)]
        self.workers = [Slot(f"worker-{number}", self._spawn_worker) for number in range(self.size.workers)]
        self._supervisor.start()
        self.wait_ready()

    def _write_models(self) -> None:
        entry = {"name": MODEL, "engine": "lexical", "engine_args": {"delay_seconds": self.size.delay_seconds}}
        (self.folder / "models.yaml").write_text(yaml.safe_dump({"models": [entry]}))

    def _environment(self, link: str) -> dict[str, str]:
        return os.environ | {
            "REDIS_URL": f"redis://127.0.0.1:{self.links[link].port}/0",
            "RERANKQ_MODELS_FILE": str(self.folder / "models.yaml"),
            "TMPDIR": str(self.folder),
            "PYTHONUNBUFFERED": "1",
        }

    def _spawn_api(self, slot: Slot) -> Process:
        port = self._api_ports[self.apis.index(slot)]
        variables = {
            "RERANKQ_SHARD_TOKENS": str(SHARD_TOKENS),
            "RERANKQ_RESULT_SECONDS": str(self.size.result_seconds),
            "RERANKQ_WAIT_SECONDS": str(WAIT_SECONDS),
        }
        command = [sys.executable, "-m", "api", "serve", "--port", str(port)]
        environment = self._environment("apis") | variables | slot.variables
        return Process(slot.name, command, self.folder / f"{slot.name}.log", environment)

    def _spawn_worker(self, slot: Slot) -> Process:
        variables = {
            "RERANKQ_CONCURRENCY": str(self.size.concurrency),
            "RERANKQ_RESERVED": "1",
            POISON_VARIABLE: POISON_WORD,
            CLOCK_VARIABLE: "",
        }
        command = [sys.executable, "-m", "tests.chaos.worker_start", "--model", MODEL]
        environment = self._environment("workers") | variables | slot.variables
        return Process(slot.name, command, self.folder / f"{slot.name}.log", environment)

    def _supervise(self) -> None:
        """Starts all but Redis. Runs until everything is stopped: the processes' leashes hang on this thread."""
        while not self._halted.is_set():
            with self._lock:
                for slot in (*self.apis, *self.workers):
                    if not slot.free and not slot.alive and not self._halted.is_set():
                        self._revive(slot)
            self._halted.wait(_TEND_SECONDS)
        self._released.wait()

    def _revive(self, slot: Slot) -> None:
        if slot.process is not None:
            if not slot.struck:
                self.deaths.append(f"{slot.name} ended by itself with status {slot.process.exit_status}")
            slot.process.kill()
        slot.process, slot.struck = slot.spawn(slot), False

    def _all_ready(self) -> bool:
        if not all(slot.alive for slot in (*self.apis, *self.workers)):
            return False
        for url in self.urls:
            status, body = get_json(f"{url}/ready")
            if status != 200 or body["models"][MODEL]["ready"] < len(self.workers):
                return False
        return True
