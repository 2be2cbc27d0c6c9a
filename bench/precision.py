"""`python -m bench.precision`: measures how fast a CPU worker is in each precision, and how far scores move.

Takes four minutes. Runs vLLM's engine alone: in float32, in bfloat16, and on the 8-bit copy that `python -m worker
quantize` writes, with the precision that the worker chooses for the rest. The speed is that of the cross-encoder with
random weights. The change of a score is its largest difference from float32 in 128 pairs, after the sigmoid: of that
cross-encoder, and of the trained bi-encoder that the service ships with.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import machine
from bench.__main__ import clear_settings
from bench.generator import EngineSpeed, MeasurementFailed, bare_engine
from bench.models import bundled, make_cross_encoder, quantize
from bench.servers import environment

_HEAD = "| precision | 100 words | 5 words | change of a score | mean | of the bundled model | mean |"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.precision", description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="length of one measurement; default: %(default)s")
    options = parser.parse_args(arguments)
    clear_settings(os.environ)
    print(f"{machine.describe()}\n\n{_HEAD}\n|---|{'---:|' * 6}", flush=True)
    with tempfile.TemporaryDirectory(prefix="rerankq-bench-") as name:
        folder = Path(name)
        try:
            _measure(folder, options.seconds)
        except MeasurementFailed as error:
            print(error, file=sys.stderr)
            return 1
    return 0


def _measure(folder: Path, seconds: float) -> None:
    """Print a row for each precision. Raises MeasurementFailed."""
    made = folder / "cross-encoder"
    make_cross_encoder(made, folder / "model.log")
    log = folder / "model.log"
    made_copy = quantize(made, folder / "made-8-bits", log)
    bundled_copy = quantize(bundled(), folder / "bundled-8-bits", log)
    float32, bfloat16 = {"dtype": "float32"}, {"dtype": "bfloat16"}
    exact: list[list[float]] = []
    for title, cross_encoder, bi_encoder, engine_args in (
        ("float32", made, bundled(), float32),
        ("bfloat16", made, bundled(), bfloat16),
        ("8 bits", made_copy, bundled_copy, {}),
    ):

        def run(model: Path, words: list[int], duration: float, arguments: dict[str, Any]) -> list[EngineSpeed]:
            order = {"model": str(model), "seconds": duration, "first": 0, "seed": 1, "words": words}
            return bare_engine(order | {"engine_args": arguments}, environment(folder), folder / "engine.log")

        long, short = run(cross_encoder, [100, 5], seconds, engine_args)
        samples = [long.sample, run(bi_encoder, [5], 0.1, engine_args)[0].sample]
        exact = exact or samples
        changes = [cell for pair in zip(exact, samples, strict=True) for cell in _changes(*pair)]
        cells = [f"{speed.pairs_per_second:.0f} pairs/s" for speed in (long, short)] + changes
        print(f"| {title} | {' | '.join(cells)} |", flush=True)


def _changes(exact: Sequence[float], found: Sequence[float]) -> tuple[str, str]:
    """The largest and the mean difference."""
    differences = [abs(one - other) for one, other in zip(exact, found, strict=True)]
    return f"{max(differences):.4f}", f"{sum(differences) / len(differences):.4f}"


if __name__ == "__main__":
    sys.exit(main())
