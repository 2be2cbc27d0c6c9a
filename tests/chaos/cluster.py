"""The whole service as processes: Redis with an append-only file, API processes and workers behind TCP proxies.

A supervisor thread restarts every API process and worker that exits. Leaving the cluster ends every process by its pid
and removes the cluster's folder.
"""

import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from infra.local.redis_server import find_binary, free_port
from infra.local.stack import get_json
from tests.chaos.cases import POISON_WORD, SHARD_TOKENS
from tests.chaos.faulty_worker import CLOCK_VARIABLE, POISON_VARIABLE
from tests.chaos.ledger_view import LedgerView
from tests.chaos.processes import Process, stop
from tests.chaos.tcp_proxy import TcpProxy

MODEL = "chaos"
WAIT_SECONDS = 30.0
"""How long the API keeps a caller waiting."""
_SUPERVISE_SECONDS = 0.05
_READY_SECONDS = 60.0
_GRACE_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Size:
    """Size and timing of the cluster. `keep`: do not remove the folder with the processes' logs.

    `shard_tokens`: the estimated tokens of a shard; the default splits a LARGE case.
    """

    apis: int = 2
    workers: int = 3
    concurrency: int = 4
    delay_seconds: float = 0.15
    result_seconds: float = 20.0
    shard_tokens: int = SHARD_TOKENS
    keep: bool = False


@dataclass(slots=True)
class Slot:
    """A place for one process. The supervisor replaces a process that exits, unless the slot is `suspended`.

    `exit_expected`: a fault ended the process, so its exit is not reported as unexpected.
    """

    name: str
    spawn: Callable[["Slot"], Process]
    variables: dict[str, str] = field(default_factory=dict)
    process: Process | None = None
    suspended: bool = False
    exit_expected: bool = False

    @property
    def pid(self) -> int:
        return self.process.pid if self.process else 0

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.exit_status is None

    def end(self, number: signal.Signals) -> None:
        """Send the process a signal that ends it."""
        if self.process is not None:
            self.exit_expected = True
            self.process.send(number)


class ClusterError(Exception):
    """A process did not start. The message has the last lines of its log."""


class Cluster:
    """A context manager. Redis is killed when the thread that entered it ends, so that thread must outlive it."""

    def __init__(self, size: Size | None = None) -> None:
        self.size = size or Size()
        self.unexpected_exits: list[str] = []
        self.redis_port = free_port()
        self._redis: Process | None = None
        self._stopping = threading.Event()
        self._processes_ended = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        self._lock = threading.RLock()

    def __enter__(self) -> "Cluster":
        self.folder = Path(tempfile.mkdtemp(prefix="rerankq-chaos-"))
        self.proxies: dict[str, TcpProxy] = {}
        self.workers: list[Slot] = []
        self.apis: list[Slot] = []
        self._views: list[LedgerView] = []
        self.view = self.new_view()
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        with self._lock:
            processes = [slot.process for slot in (*self.apis, *self.workers) if slot.process]
        try:
            stop(processes, _GRACE_SECONDS)
            if self._redis is not None:
                stop([self._redis], _GRACE_SECONDS)
        finally:
            self._processes_ended.set()
            if self._supervisor.ident is not None:
                self._supervisor.join(_GRACE_SECONDS)
            for proxy in self.proxies.values():
                proxy.close()
            for view in self._views:
                view.close()
            if not self.size.keep:
                shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{port}" for port in self._api_ports]

    @property
    def redis_pid(self) -> int:
        assert self._redis is not None
        return self._redis.pid

    @property
    def payloads(self) -> Path:
        """The folder of the payload store."""
        return self.folder / "payloads"

    def new_view(self) -> LedgerView:
        """Return a ledger view for another thread. The cluster closes it."""
        self._views.append(LedgerView(self.redis_port, MODEL))
        return self._views[-1]

    def ready_workers(self) -> int:
        """Count the running workers whose heartbeat says ready. Raises redis.RedisError."""
        ready = self.view.ready_pids()
        return sum(slot.alive and slot.pid in ready for slot in self.workers)

    def wait_ready(self) -> None:
        """Wait until every API process responds and every worker is ready. Raises ClusterError."""
        deadline = time.monotonic() + _READY_SECONDS
        while not self._all_ready():
            if time.monotonic() > deadline:
                logs = [slot.process.last_lines(6) for slot in (*self.apis, *self.workers) if slot.process]
                raise ClusterError("not ready:\n" + "\n---\n".join(logs))
            time.sleep(0.1)

    def start_redis(self) -> None:
        """Start Redis with its append-only file, and wait until it responds. Raises ClusterError."""
        command = [find_binary(), "--port", str(self.redis_port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        command += ["--save", "", "--appendonly", "yes", "--appendfsync", "everysec"]
        command += ["--maxmemory-policy", "noeviction"]
        self._redis = Process("redis", command, self.folder / "redis.log", os.environ)
        deadline = time.monotonic() + _READY_SECONDS
        while not self.view.ping():
            if self._redis.exit_status is not None or time.monotonic() > deadline:
                raise ClusterError(f"Redis did not start:\n{self._redis.last_lines()}")
            time.sleep(0.05)

    def stop_redis(self, number: signal.Signals) -> None:
        """Stop or kill Redis. The supervisor does not restart it."""
        assert self._redis is not None
        self._redis.send(number)
        if not self._redis.wait(_GRACE_SECONDS):
            self._redis.kill()

    def restart_with(self, slot: Slot, variables: Mapping[str, str]) -> None:
        """Stop the slot's process, and let the supervisor start another one with these environment variables."""
        self.suspend([slot])
        stop([slot.process] if slot.process else [], _GRACE_SECONDS * 3)
        with self._lock:
            slot.variables = dict(variables)
        self.resume([slot])

    def suspend(self, slots: Sequence[Slot]) -> None:
        """Expect the processes of these slots to end, and do not replace them until `resume`."""
        with self._lock:
            for slot in slots:
                slot.suspended = slot.exit_expected = True

    def resume(self, slots: Sequence[Slot]) -> None:
        """Let the supervisor replace the processes of these slots that have ended."""
        with self._lock:
            for slot in slots:
                slot.suspended = False

    def stop_workers(self) -> None:
        """Stop all workers with SIGTERM. They are not replaced until `resume`."""
        self.suspend(self.workers)
        stop([slot.process for slot in self.workers if slot.process], _GRACE_SECONDS * 3)

    def _start(self) -> None:
        self._write_models()
        self.start_redis()
        self.proxies = {"workers": TcpProxy(self.redis_port), "apis": TcpProxy(self.redis_port)}
        self._api_ports = [free_port() for _ in range(self.size.apis)]
        self.apis = [Slot(f"api-{number}", self._spawn_api) for number in range(self.size.apis)]
        self.workers = [Slot(f"worker-{number}", self._spawn_worker) for number in range(self.size.workers)]
        self._supervisor.start()
        self.wait_ready()

    def _write_models(self) -> None:
        entry = {"name": MODEL, "engine": "lexical", "engine_args": {"delay_seconds": self.size.delay_seconds}}
        (self.folder / "models.yaml").write_text(yaml.safe_dump({"models": [entry]}))

    def _environment(self, proxy: str) -> dict[str, str]:
        return os.environ | {
            "REDIS_URL": f"redis://127.0.0.1:{self.proxies[proxy].port}/0",
            "RERANKQ_MODELS_FILE": str(self.folder / "models.yaml"),
            "TMPDIR": str(self.folder),
            "PYTHONUNBUFFERED": "1",
        }

    def _spawn_api(self, slot: Slot) -> Process:
        port = self._api_ports[self.apis.index(slot)]
        variables = {
            "RERANKQ_SHARD_TOKENS": str(self.size.shard_tokens),
            "RERANKQ_RESULT_SECONDS": str(self.size.result_seconds),
            "RERANKQ_WAIT_SECONDS": str(WAIT_SECONDS),
            "RERANKQ_PAYLOADS": str(self.payloads),
            "RERANKQ_WEBHOOK_NETWORKS": "127.0.0.0/8",
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
        command = [sys.executable, "-m", "tests.chaos.faulty_worker", "--model", MODEL]
        environment = self._environment("workers") | variables | slot.variables
        return Process(slot.name, command, self.folder / f"{slot.name}.log", environment)

    def _supervise(self) -> None:
        """Start all processes but Redis. Runs until they have ended: they die with the thread that started them."""
        while not self._stopping.is_set():
            with self._lock:
                for slot in (*self.apis, *self.workers):
                    if not slot.suspended and not slot.alive and not self._stopping.is_set():
                        self._restart(slot)
            self._stopping.wait(_SUPERVISE_SECONDS)
        self._processes_ended.wait()

    def _restart(self, slot: Slot) -> None:
        if slot.process is not None:
            if not slot.exit_expected:
                self.unexpected_exits.append(f"{slot.name} exited unexpectedly with status {slot.process.exit_status}")
            slot.process.kill()
        slot.process, slot.exit_expected = slot.spawn(slot), False

    def _all_ready(self) -> bool:
        if not all(slot.alive for slot in (*self.apis, *self.workers)):
            return False
        for url in self.urls:
            status, body = get_json(f"{url}/ready")
            if status != 200 or body["models"][MODEL]["ready"] < len(self.workers):
                return False
        return True
