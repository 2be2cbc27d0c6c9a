"""vLLM's settings for this device: environment variables and engine arguments. Imports nothing of vLLM.

The values for CPUs were measured, see docs/operations.md. A model's own `engine_args` override all of them.
"""

import logging
import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import psutil

from shared.models import ModelSpec
from worker.engines.vllm.precision import choose_precision, read_cpu_features
from worker.engines.vllm.step_sizes import CPU_STEP

logger = logging.getLogger(__name__)


def prepare_environment(environment: MutableMapping[str, str]) -> None:
    """Set the variables that vLLM reads when it is imported."""
    # The engine core runs in this process unless the operator sets 1: no hop between processes for each pair, and vLLM
    # is imported once instead of three times.
    environment.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    environment.setdefault("VLLM_NO_USAGE_STATS", "1")
    environment.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    # "auto" assumes hyper-threads and leaves half of a small machine idle.
    environment.setdefault("VLLM_CPU_OMP_THREADS_BIND", ",".join(map(str, sorted(os.sched_getaffinity(0)))))
    environment.setdefault("TOKENIZERS_PARALLELISM", "false")
    # numpy only multiplies small matrices here, and a process that forks (worker.process.standby) must have one thread.
    environment.setdefault("OPENBLAS_NUM_THREADS", "1")


def engine_settings(spec: ModelSpec, *, on_cpu: bool) -> dict[str, Any]:
    """The engine's arguments for this model. Raises ConfigurationError when its source cannot be found."""
    location = spec.location()
    if Path(location).is_dir():
        # A folder needs no hub: prevent attempts to reach one.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    settings: dict[str, Any] = {
        "model": location,
        "revision": spec.revision,
        "runner": "pooling",
        "distributed_executor_backend": "uni",
        "scheduling_policy": "priority",
        "disable_log_stats": True,
    }
    precision = choose_precision(spec.engine_args, read_cpu_features() if on_cpu else None)
    logger.info("precision %s: %s", precision.dtype, precision.reason)
    return settings | (_cpu_settings() if on_cpu else {}) | spec.engine_args | {"dtype": precision.dtype}


def _cpu_settings() -> dict[str, Any]:
    memory = psutil.virtual_memory()
    return {
        # Compiling needs a C++ compiler, and half a minute at the first start.
        "enforce_eager": True,
        "max_num_seqs": CPU_STEP.prompts,
        # Prompts share whole blocks only, and vLLM's default of 128 tokens is longer than most shared beginnings. The
        # kernel needs at least 32.
        "block_size": 32,
        # The share of CPU memory here: vLLM refuses to start when less than this is free.
        "gpu_memory_utilization": round(min(0.3, 0.5 * memory.available / memory.total), 3),
    }
