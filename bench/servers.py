"""Starts and stops the two compared servers, each as its own users start it, without tuning it for a case.

Measures the time from the start of the first process to the first score. Each process has its own process group, and
the group is killed if it has not ended in time. Servers write only to the folder that the caller removes.
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
from worker.engines.vllm.precision import choose_precision, read_cpu_features

START_SECONDS = 180.0
STOP_SECONDS = 20.0
_THEIR_STOP_SECONDS = 5.0
"""A ready server ends within one second; a starting one ignores SIGTERM."""
_POLL_SECONDS = 0.02
THEIRS, OURS = "theirs", "ours"


@dataclass(frozen=True, slots=True)
class Server:
    """A ready server. `first_score_seconds` is the time from the start of its first process to its first score.

    `check` raises StackError when one of its processes has ended. `stop_worker` stops the worker, but not the API.
    """

    name: str
    port: int
    model: str
    first_score_seconds: float
    check: Callable[[], None]
    stop_worker: Callable[[], None] = lambda: None


@contextmanager
def theirs(model: Path, folder: Path) -> Iterator[Server]:
    """Run vLLM's own API server with its defaults, on all cores. Raises StackError when it does not start.

    It caches compiled code in `folder` for later starts.
    """
    port = free_port()
    began = time.perf_counter()
    # Without this, Python would import packages from the working directory, such as ours.
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
    """Return the command line with only the options that serving this model on this machine needs.

    It computes in the same precision as our worker.
    """
    memory = psutil.virtual_memory()
    arguments = {
        "--model": str(model),
        "--served-model-name": model.name,
        "--runner": "pooling",
        "--dtype": choose_precision({}, read_cpu_features()).dtype,
        # On a CPU this is a share of main memory. The default, 0.92, fails; this is the share that our worker uses.
        "--gpu-memory-utilization": f"{min(0.3, 0.5 * memory.available / memory.total):.3f}",
        "--host": "127.0.0.1",
        "--port": str(port),
    }
    flat = [part for item in arguments.items() for part in item]
    return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *flat]


def environment(folder: Path) -> dict[str, str]:
    """Return this process's environment plus: all cores ("auto" leaves half of a small machine idle), no model hub, no
    usage statistics, and caches and temporary files in `folder`."""
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
    """Run Redis, the API and one worker as `make run` does; None means the shipped model. Raises StackError."""
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
    """Poll until the server scores. Returns the time on perf_counter's clock.

    Raises StackError when a process ends or after START_SECONDS.
    """
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
    """Return (status, body). Raises OSError or HTTPException."""
    return _send(port, "POST", path, body)


def get(port: int, path: str) -> tuple[int, bytes]:
    """Return (status, body). Raises OSError or HTTPException."""
    return _send(port, "GET", path, None)


def _send(port: int, method: str, path: str, body: str | None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
