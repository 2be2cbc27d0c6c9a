"""Selects Intel's OpenMP runtime for the CPU, if its package is installed (the CPU worker's lock contains it).

PyTorch ships GNU's runtime, whose threads spin at every barrier even when the core that they wait for runs another
process; Intel's threads sleep after a moment (measurements: bench/README.md). Must run before torch is imported: the
process uses the first runtime that it loads.
"""

import ctypes
import logging
import sys
from collections.abc import MutableMapping
from pathlib import Path

logger = logging.getLogger(__name__)

LIBRARY = "libiomp5.so"
_SETTINGS = {
    # Milliseconds of spinning after a parallel region: longer than the pause between two regions of a step,
    # shorter than the pause between two steps.
    "KMP_BLOCKTIME": "1",
    # As vLLM sets them itself for an Intel runtime that it finds in LD_PRELOAD.
    "KMP_TPAUSE": "0",
    "KMP_FORKJOIN_BARRIER_PATTERN": "dist,dist",
    "KMP_PLAIN_BARRIER_PATTERN": "dist,dist",
    "KMP_REDUCTION_BARRIER_PATTERN": "dist,dist",
}


def use_intel_runtime(environment: MutableMapping[str, str], prefix: str = sys.prefix) -> bool:
    """Load Intel's runtime for the whole process. Returns False without it, or when torch is already imported.

    Settings of the operator are kept.
    """
    library = Path(prefix, "lib", LIBRARY)
    if "torch" in sys.modules or not library.exists():
        return False
    for name, value in _SETTINGS.items():
        environment.setdefault(name, value)
    try:
        ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
    except OSError as error:
        logger.warning("a library cannot be loaded, GNU's OpenMP is used", extra={"library": library, "error": error})
        return False
    return True
