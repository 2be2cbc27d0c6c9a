"""Chooses the precision of a model on a CPU by the features of its processor. Imports nothing of vLLM.

bfloat16 is nearly twice as fast as float32 where the processor computes it, and slow where it is emulated
(measurements: bench/README.md). vLLM's own choice, float16, is emulated on most CPUs.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

CPU_INFO = Path("/proc/cpuinfo")
AUTO = "auto"
_NATIVE_BFLOAT16 = ("amx_bf16", "avx512_bf16", "bf16")
"""The features of x86 processors (AMX, AVX-512) and of ARM ones that compute with bfloat16."""
_FEATURE_FIELDS = ("flags", "Features")
"""The names of the field on x86 and on ARM."""


@dataclass(frozen=True, slots=True)
class Precision:
    """vLLM's `dtype`, and why it was chosen."""

    dtype: str
    reason: str


def read_cpu_features(path: Path = CPU_INFO) -> frozenset[str]:
    """The features that all processors of this machine have, as Linux names them. Empty when they cannot be read."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return frozenset()
    fields = (line.partition(":") for line in lines)
    found = [frozenset(value.split()) for name, _, value in fields if name.strip() in _FEATURE_FIELDS]
    return frozenset.intersection(*found) if found else frozenset()


def choose_precision(engine_args: dict[str, Any], cpu_features: frozenset[str] | None) -> Precision:
    """The precision for a model with these `engine_args`. `cpu_features` is None on a GPU."""
    wanted = engine_args.get("dtype") or AUTO
    if str(wanted).lower() != AUTO:
        return Precision(wanted, "set in engine_args")
    if cpu_features is None:
        return Precision(AUTO, "vLLM's choice for this GPU and checkpoint")
    for feature in _NATIVE_BFLOAT16:
        if feature in cpu_features:
            return Precision("bfloat16", f"this CPU computes it natively ({feature})")
    return Precision("float32", "this CPU does not compute bfloat16 natively")
