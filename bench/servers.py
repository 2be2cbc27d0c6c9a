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
from typing import Any

import psutil
import yaml

from infra.local.redis_server import free_port
from infra.local.stack import Options, Stack, StackError
from shared.processes import ChildProcess, stop_all

START_SECONDS = 180.0
STOP_SECONDS = 20.0
_THEIR_STOP_SECONDS = 5.0
"""A ready server ends within one second; a starting one ignores SIGTERM."""
_POLL_SECONDS = 0.02
THEIRS, OURS = "theirs", "ours"
FLOAT32: Mapping[str, Any] = {"dtype": "float32"}
"""The engine arguments of both sides where the two are compared at the same precision: every CPU computes in it, and
the generated weights are stored in it."""


@dataclass(frozen=True, slots=True)
class Server:
    """A ready server. `first_score_seconds` is the time from the start of its first process to its first score.

    `check` raises StackError when one of its processes has ended. `stop_worker` stops the worker, but not the API.
    `worker_cpu_seconds` returns the processor time that the worker has used since its start.
    """

    name: str
    port: int
    model: str
    first_score_seconds: float
    check: Callable[[], None]
    stop_worker: Callable[[], None] = lambda: None
    worker_cpu_seconds: Callable[[], float] | None = None


@contextmanager
def theirs(model: Path, folder: Path, arguments: Mapping[str, Any] = FLOAT32) -> Iterator[Server]:
    """Run vLLM's own API server with its defaults except `arguments`. Raises StackError when it does not start.

    It caches compiled code in `folder` for later starts.
    """
    port = free_port()
    # Without this, Python would import packages from the working directory, such as ours.
    variables = environment(folder) | {"PYTHONSAFEPATH": "1"}
    with serving(THEIRS, command(model, port, arguments), port, model.name, folder, variables) as server:
        yield server


@contextmanager
def serving(
    name: str, arguments: list[str], port: int, model: str, folder: Path, variables: Mapping[str, str]
) -> Iterator[Server]:
    """Run another system's server, which is one command. Raises StackError when it does not start."""
    began = time.perf_counter()
    child = ChildProcess(name, arguments, folder / f"{name}.log", variables)

    def check() -> None:
        if child.exit_status is not None:
            raise StackError(f"the server {name} ended with status {child.exit_status}:\n{child.last_lines(30)}")

    try:
        seconds = first_score(port, model, check) - began
        yield Server(name, port, model, seconds, check)
    finally:
        stop_all([child], _THEIR_STOP_SECONDS)


def command(model: Path, port: int, arguments: Mapping[str, Any]) -> list[str]:
    """Return the command line that serves the model; `arguments` are vLLM's engine arguments by their Python names."""
    memory = psutil.virtual_memory()
    # On a CPU this is a share of main memory. The default, 0.92, fails; this is the share that our worker uses.
    share = round(min(0.3, 0.5 * memory.available / memory.total), 3)
    flags = ["--model", str(model), "--served-model-name", model.name, "--runner", "pooling"]
    flags += ["--host", "127.0.0.1", "--port", str(port)]
    for name, value in ({"gpu_memory_utilization": share} | dict(arguments)).items():
        flag = name.replace("_", "-")
        flags += [f"--{flag}" if value else f"--no-{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
    return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *flags]


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

        def worker_cpu_seconds() -> float:
            used = psutil.Process(stack.child("worker-1").pid).cpu_times()
            return used.user + used.system

        yield Server(OURS, stack.port, served, seconds, stack.check, stop_worker, worker_cpu_seconds)


def models_file(model: Path, folder: Path, arguments: Mapping[str, Any]) -> dict[str, str]:
    """Write a models file with one model and its engine arguments. Returns the variable with which `ours` reads it."""
    path = folder / f"{model.name}.yaml"
    entry = {"name": model.name, "source": str(model), "engine_args": dict(arguments)}
    path.write_text(yaml.safe_dump({"models": [entry]}))
    return {"RERANKQ_MODELS_FILE": str(path)}


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
