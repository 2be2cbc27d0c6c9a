"""The first start on a machine or in a container, with an empty vLLM cache."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from infra.local.stack import Stack
from tests.stacks import PANDA, client_of, running

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]


def commands_until_ready(stack: Stack) -> set[str]:
    """The command lines of all processes that the worker starts before it is ready."""
    worker = psutil.Process(stack.child("worker-1").pid)
    found: set[str] = set()
    with ThreadPoolExecutor(1) as threads:
        ready = threads.submit(stack.wait_ready, 120)
        while not ready.done():
            for process in worker.children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    found.add(" ".join(process.cmdline()))
            time.sleep(0.05)
        ready.result()
    return found


def test_no_other_process_imports_vllm_to_inspect_the_model(tmp_path: Path) -> None:
    with running(engine="vllm", ready=False, environment={"VLLM_CACHE_ROOT": str(tmp_path)}) as stack:
        commands = commands_until_ready(stack)
        with client_of(stack) as client:
            assert client.post("/v1/rerank", json=PANDA).status_code == 200
    # vLLM has inspected the model, and has cached the result.
    assert list(tmp_path.rglob("*.json"))
    assert not [command for command in commands if "vllm" in command]
