"""Runs the whole service for tests, as real processes on free ports."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from infra.local.log_follower import LogFollower
from infra.local.stack import Options, Stack

PANDA = {
    "query": "What is a panda?",
    "documents": ["hi", "it is a bear", "The giant panda is a bear species endemic to China."],
}


@contextmanager
def running(
    *,
    model: str | None = None,
    engine: str | None = "lexical",
    ready: bool = True,
    environment: Mapping[str, str] | None = None,
    pool: Mapping[str, Any] | None = None,
    processes: int | None = None,
) -> Iterator[Stack]:
    """A running stack, stopped on exit. With `ready` it waits for `/ready`, otherwise only for the API.

    With `pool` an autoscaler runs with these pool settings. The score cache is off unless `environment` enables it, so
    that a repeated request is scored again. `processes` serve the API.
    """
    environment = {"RERANKQ_SCORE_CACHE": "false"} | dict(environment or {})
    options = Options(port=0, model=model, engine=engine, environment=environment, pool=pool, processes=processes)
    with Stack(options) as stack:
        stack.start_redis()
        stack.start_service()
        if ready:
            stack.wait_ready(180)
        yield stack


def workers_of(stack: Stack) -> list[psutil.Process]:
    """The child processes of the autoscaler: the workers, and the standby if there is one."""
    try:
        return psutil.Process(stack.child("autoscaler").pid).children()
    except psutil.NoSuchProcess:
        return []


def autoscaler_messages(stack: Stack) -> list[str]:
    """The messages that the autoscaler has printed for the operator so far."""
    return LogFollower(stack.log("autoscaler"), "autoscaler").new()


def write_models(folder: Path, **entry: Any) -> str:
    """Write a models file with one entry. Returns its path."""
    path = folder / "models.yaml"
    path.write_text(yaml.safe_dump({"models": [{"name": "test-model", "engine": "lexical"} | entry]}))
    return str(path)


@contextmanager
def client_of(stack: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.url, timeout=60) as client:
        yield client
