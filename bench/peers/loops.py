"""Runs the loops of other libraries, which score without a server, in their own environments."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.generator import ROOT, MeasurementFailed, run_program

BATCH = 32
"""Pairs that a loop scores at once under load."""
_START_SECONDS = 120.0
"""For imports, and for exporting and quantizing the model."""


@dataclass(frozen=True, slots=True)
class Loop:
    """A library, the module that runs it, and the set of packages of its environment."""

    title: str
    module: str
    packages: str


LOOPS = {
    "onnx": Loop("ONNX Runtime int8", "bench.peers.onnx_loop", "peers-onnx"),
    "sentence-transformers": Loop(
        "sentence-transformers", "bench.peers.sentence_transformers_loop", "peers-sentence-transformers"
    ),
}


@dataclass(frozen=True, slots=True)
class LoopResult:
    """`p50_ms` is the median time of one batch."""

    pairs_per_second: float
    p50_ms: float


def python_of(packages: str) -> str:
    """Return the interpreter of a set's environment. Raises MeasurementFailed when it is not installed."""
    python = ROOT / f".venv-{packages}" / "bin" / "python"
    if not python.exists():
        raise MeasurementFailed(f".venv-{packages} is missing: `make bench` and `make bench-peers` install it")
    return str(python)


def run_loop(
    loop: Loop, model: Path, loads: Sequence[tuple[int, int]], seconds: float, seed: int, folder: Path
) -> list[LoopResult]:
    """Measure each load, which is (pairs at once, words per document). Raises MeasurementFailed.

    `folder` keeps the exported model for later calls.
    """
    order = {"model": str(model), "loads": list(loads), "seconds": seconds, "seed": seed, "folder": str(folder)}
    limit = _START_SECONDS + 2 * seconds * len(loads)
    log = folder / f"{loop.packages}.log"
    found = run_program(loop.module, order, dict(os.environ), log, limit, python_of(loop.packages))
    return [LoopResult(each["pairs"] / each["seconds"], each["p50_ms"]) for each in found]
