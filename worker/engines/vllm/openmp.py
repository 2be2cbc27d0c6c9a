"""Which OpenMP runtime the CPU computes with: Intel's, where its package is installed (the CPU worker's lock has it).

PyTorch brings GNU's. On a machine whose cores are all in use, GNU's threads spin at every barrier while the core that
they wait for is lent to somebody else; Intel's go to sleep after a moment. Measured in bench/README.md. Must run
before anything imports torch: the first runtime whose names are in the process is the one that everybody gets.
"""

import ctypes
import logging
import sys
from collections.abc import MutableMapping
from pathlib import Path

logger = logging.getLogger(__name__)

LIBRARY = "libiomp5.so"
_SETTINGS = {
    # Milliseconds of spinning after a parallel region: longer than the pause between two of a step, shorter than one
    # between two steps.
    "KMP_BLOCKTIME": "1",
    # As vLLM sets them itself for an Intel runtime that it finds in LD_PRELOAD.
    "KMP_TPAUSE": "0",
    "KMP_FORKJOIN_BARRIER_PATTERN": "dist,dist",
    "KMP_PLAIN_BARRIER_PATTERN": "dist,dist",
    "KMP_REDUCTION_BARRIER_PATTERN": "dist,dist",
}


def use_intel_runtime(environment: MutableMapping[str, str], prefix: str = sys.prefix) -> bool:
    """Load Intel's runtime for the whole process; False where there is none, or torch is here already.

    Settings that the operator has made himself are kept.
    """
    library = Path(prefix, "lib", LIBRARY)
    if "torch" in sys.modules or not library.exists():
        return False
    for name, value in _SETTINGS.items():
        environment.setdefault(name, value)
    try:
        ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
    except OSError as error:
        logger.warning("%s cannot be loaded, GNU's OpenMP is used: %s", library, error)
        return False
    return True
