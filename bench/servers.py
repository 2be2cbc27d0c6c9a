"""The two servers that are compared, each started as its own users start it, and stopped whole.

Owns their command lines, their environment and the time from the start of the first process to the first score.
Refuses to tune either of them for a case. Every process is in a group of its own; whatever a server leaves behind
after its time to stop is killed, and what it writes lies in the folder that its caller removes.
"""

import http.client
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from infra.local.redis_server import free_port
from infra.local.stack import Options, Stack, StackError
from shared.processes import ChildProcess, stop_all

START_SECONDS = 180.0
STOP_SECONDS = 20.0
_THEIR_STOP_SECONDS = 5.0
"""A server that serves ends within one; one that still starts does not hear SIGTERM at all."""
_POLL_SECONDS = 0.02
THEIRS, OURS = "theirs", "ours"


@dataclass(frozen=True, slots=True)
class Server:
    """A server that has scored. `first_score_seconds` counts from the start of its first process.

    `check` raises StackError when one of its processes has ended; `stop_worker` leaves only what answers callers.
    """

    name: str
    port: int
    model: str
    first_score_seconds: float
    check: Callable[[], None]
    stop_worker: Callable[[], None] = lambda: None


@contextmanager
def theirs(model: Path, folder: Path) -> Iterator[Server]:
    """vLLM's own API server with its defaults, on every core. Raises StackError when it does not start.

    What it compiles at its first start it finds again in `folder` at the next ones.
    """
    port = free_port()
    began = time.perf_counter()
    # The folder that it is started from holds packages of ours.
    variables = environment(folder) | {"PYTHONSAFEPATH": "1"}
    child = ChildProcess("vllm-server", command(model, port), folder / "vllm-server.log", variables)

    def check() -> None:
        if child.exit_status is not None:
            raise StackError(f"vLLM's server ended with status {child.exit_status}:\n{child.last_lines(30)}")

    try:
        seconds = first_score(port, model.name, check) - began
        yield Server(THEIRS, port, model.name, seconds, check)
    finally:
        stop_all([child], _THEIR_STOP_SECONDS)


def command(model: Path, port: int) -> list[str]:
    """Nothing beyond what it takes to serve this model on this machine in float32."""
    memory = psutil.virtual_memory()
    arguments = {
        "--model": str(model),
        "--served-model-name": model.name,
        "--runner": "pooling",
        "--dtype": "float32",
        # It means CPU memory here, and the default of 0.92 refuses to start: the same share as in our settings.
        "--gpu-memory-utilization": f"{min(0.3, 0.5 * memory.available / memory.total):.3f}",
        "--host": "127.0.0.1",
        "--port": str(port),
    }
    flat = [part for item in arguments.items() for part in item]
    return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *flat]


def environment(folder: Path) -> dict[str, str]:
    """The caller's own, no hub, every core ("auto" would leave half of a small machine idle), no trace outside."""
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    return dict(os.environ) | {
        "VLLM_CPU_OMP_THREADS_BIND": cores,
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_CACHE_ROOT": str(folder / "vllm-cache"),
        "TMPDIR": str(folder),
    }


@contextmanager
def ours(model: Path | None, variables: Mapping[str, str]) -> Iterator[Server]:
    """Redis, the API and one worker as `make run` starts them; the shipped model for None. Raises StackError."""
    began = time.perf_counter()
    options = Options(port=0, model=str(model) if model else None, environment=variables)
    with Stack(options) as stack:
        stack.start_redis()
        served = stack.start_service().name
        seconds = first_score(stack.port, served, stack.check) - began

        def stop_worker() -> None:
            worker = stack.child("worker-1")
            worker.request_stop()
            worker.wait_or_kill(STOP_SECONDS)

        yield Server(OURS, stack.port, served, seconds, stack.check, stop_worker)


def first_score(port: int, model: str, check: Callable[[], None]) -> float:
    """When the first score came, on perf_counter's clock. Raises StackError when time is up or a process ends."""
    body = json.dumps({"model": model, "query": "first", "documents": ["of all"]})
    deadline = time.perf_counter() + START_SECONDS
    while time.perf_counter() < deadline:
        check()
        with suppress(OSError, http.client.HTTPException):
            if post(port, "/v1/rerank", body)[0] == 200:
                return time.perf_counter()
        time.sleep(_POLL_SECONDS)
    raise StackError(f"no score from {model} within {START_SECONDS:g} s")


def post(port: int, path: str, body: str) -> tuple[int, bytes]:
    """Status and body. Raises OSError or HTTPException."""
    return _ask(port, "POST", path, body)


def get(port: int, path: str) -> tuple[int, bytes]:
    """Status and body. Raises OSError or HTTPException."""
    return _ask(port, "GET", path, None)


def _ask(port: int, method: str, path: str, body: str | None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
