"""`python -m bench.engine_choices`: measures vLLM's engine on this CPU under different settings, without a server.

Shows the effect of each of the worker's choices (worker/engines/vllm/settings.py): seconds until the engine is ready,
and pairs per second with long and with short documents. One round, one process per setting, about six minutes.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import machine
from bench.__main__ import clear_settings
from bench.generator import MeasurementFailed, bare_engine
from bench.models import make_cross_encoder
from bench.servers import environment

_SHAPES = (100, 5)


@dataclass(frozen=True, slots=True)
class Choice:
    """Engine arguments and environment variables that replace the worker's own."""

    title: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    openmp: str = ""


CHOICES = (
    Choice("as shipped"),
    Choice("compiled", {"enforce_eager": False}),
    Choice("1,024 tokens per step", {"max_num_batched_tokens": 1024}),
    Choice("4,096 tokens per step", {"max_num_batched_tokens": 4096}),
    Choice("256 sequences", {"max_num_seqs": 256}),
    Choice("float32", {"dtype": "float32"}),
    Choice("engine in a separate process", {}, {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}),
    Choice("cores as vLLM binds them", {}, {"VLLM_CPU_OMP_THREADS_BIND": "auto"}),
    Choice("GNU's OpenMP", openmp="gnu"),
    Choice("as shipped, again"),
)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.engine_choices", description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="length of one measurement; default: %(default)s")
    options = parser.parse_args(arguments)
    clear_settings(os.environ)
    print(f"{machine.describe()}\n\n| setting | ready after | {' | '.join(f'{n} words' for n in _SHAPES)} |")
    print("|---|---:|---:|---:|", flush=True)
    failed = False
    with tempfile.TemporaryDirectory(prefix="rerankq-bench-") as folder:
        model = Path(folder) / "cross-encoder"
        make_cross_encoder(model, Path(folder) / "model.log")
        for choice in CHOICES:
            try:
                print(_line(choice, model, Path(folder), options.seconds), flush=True)
            except MeasurementFailed as error:
                failed = True
                print(f"| {choice.title} | {error} | | |", flush=True)
    return 1 if failed else 0


def _line(choice: Choice, model: Path, folder: Path, seconds: float) -> str:
    """Measure one setting and return its row. Raises MeasurementFailed."""
    variables = environment(folder) | dict(choice.variables)
    order = {"model": str(model), "seconds": seconds, "first": 0, "seed": 1, "openmp": choice.openmp}
    order["engine_args"] = dict(choice.arguments)
    found = [bare_engine(order | {"words": [words]}, variables, folder / "engine.log")[0] for words in _SHAPES]
    rates = " | ".join(f"{outcome.pairs_per_second:.0f} pairs/s" for outcome in found)
    return f"| {choice.title} | {min(outcome.start_seconds for outcome in found):.1f} s | {rates} |"


if __name__ == "__main__":
    sys.exit(main())
