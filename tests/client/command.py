"""`python -m client` as a process."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from infra.local.stack import ROOT, Stack


def command(stack: Stack, *arguments: str) -> dict[str, Any]:
    """How it is started."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RERANKQ_")}
    return {
        "args": [sys.executable, "-m", "client", *arguments],
        "env": environment | {"RERANKQ_URL": stack.url, "COLUMNS": "120", "PYTHONPATH": str(ROOT)},
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }


def run(stack: Stack, *arguments: str, given: str = "") -> "subprocess.CompletedProcess[str]":
    started = command(stack, *arguments)
    return subprocess.run(**started, input=given, timeout=60, check=False)


@contextmanager
def started(stack: Stack, *arguments: str) -> "Iterator[subprocess.Popen[str]]":
    process = subprocess.Popen(**command(stack, *arguments))
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
