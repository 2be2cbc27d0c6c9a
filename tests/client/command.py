"""Runs `python -m client` as a process."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from infra.local.stack import ROOT, Stack


def popen_arguments(stack: Stack, *arguments: str) -> dict[str, Any]:
    """The arguments of subprocess.Popen."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RERANKQ_")}
    return {
        "args": [sys.executable, "-m", "client", *arguments],
        "env": environment | {"RERANKQ_URL": stack.url, "COLUMNS": "120", "PYTHONPATH": str(ROOT)},
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }


def run(stack: Stack, *arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(**popen_arguments(stack, *arguments), input=stdin, timeout=60, check=False)


@contextmanager
def running_command(stack: Stack, *arguments: str) -> "Iterator[subprocess.Popen[str]]":
    process = subprocess.Popen(**popen_arguments(stack, *arguments))
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
