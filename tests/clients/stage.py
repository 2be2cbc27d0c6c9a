"""Starts the targets: a service with an API key, a service without its Redis, and a proxy that returns 429."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict

from infra.local.stack import ROOT, Options, Stack, StackError, get_json
from shared.processes import stop_all
from tests.clients.case import Target
from tests.clients.front import MESSAGE, limiting_proxy

READY_SECONDS = 180.0
_TIMEOUT_SECONDS = 20.0


@contextmanager
def start_targets(engine: str) -> Iterator[dict[str, dict[str, str]]]:
    """Yield the targets by name, as JSON objects. Raises StackError."""
    environment = {"RERANKQ_SCORE_CACHE": "false"}
    with ExitStack() as opened:
        real = opened.enter_context(Stack(Options(port=0, engine=engine, environment=environment)))
        real.start_redis()
        model = real.start_service().name
        down = opened.enter_context(Stack(Options(port=0, workers=0, engine="lexical", environment=environment)))
        _start_and_stop_redis(down)
        proxy = opened.enter_context(limiting_proxy(real.url))
        real.wait_ready(READY_SECONDS)
        key = _make_key(real)
        targets = {
            "real": Target(real.url, key, model),
            "refused": Target(real.url, "rq-wrong", model, says="API key is not known"),
            "limited": Target(proxy, key, model, says=MESSAGE),
            "down": Target(down.url, key, model, says="the job store cannot be reached"),
        }
        yield {name: asdict(target) for name, target in targets.items()}


def _start_and_stop_redis(stack: Stack) -> None:
    stack.start_redis()
    stack.start_service()
    _wait_until(
        lambda: get_json(f"{stack.url}/health")[0] == 200, "the API of the stack without Redis does not respond"
    )
    stop_all([stack.child("redis")], 5)


def _make_key(stack: Stack) -> str:
    """Create an API key, and wait until the API requires it."""
    command = [sys.executable, "-m", "api", "keys", "create", "clients"]
    environment = os.environ | {"REDIS_URL": stack.redis_url}
    created = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    _wait_until(lambda: get_json(f"{stack.url}/v1/models")[0] == 401, "the API does not require the key")
    return created.stdout.strip()


def _wait_until(condition: Callable[[], bool], message: str) -> None:
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise StackError(message)
        time.sleep(0.05)
