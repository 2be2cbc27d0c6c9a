"""The models of the benchmarks: generated cross-encoders, and the bi-encoder that the service ships with."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.generator import ROOT, MeasurementFailed
from infra.local.stack import MODELS_FILE
from shared.models import load_models

_MAKE_SECONDS = 300


@dataclass(frozen=True, slots=True)
class MadeModel:
    """The size of a generated model, and what a pair costs: floating-point operations per token, and per token²."""

    parameters: int
    flops_per_token: int
    flops_per_token_squared: int

    def flops(self, tokens: int) -> int:
        """Return the floating-point operations of the layers for one pair."""
        return tokens * self.flops_per_token + tokens * tokens * self.flops_per_token_squared


def make_cross_encoder(folder: Path, log: Path) -> None:
    """Create a cross-encoder of the MiniLM-L6 shape with seeded weights. Raises MeasurementFailed."""
    _make(["tests/engine/reference.py", "make", str(folder), "1"], log)


def make_shape(shape: str, folder: Path, log: Path) -> MadeModel:
    """Create a cross-encoder of one of the shapes in bench/model_maker.py. Raises MeasurementFailed."""
    output = _make(["-m", "bench.model_maker", shape, str(folder)], log)
    return MadeModel(**json.loads(output.splitlines()[-1]))


LANGUAGE_MODEL_ARGUMENTS: Mapping[str, Any] = {
    "hf_overrides": {
        "architectures": ["Qwen3ForSequenceClassification"],
        "classifier_from_token": ["no", "yes"],
        "is_original_qwen3_reranker": True,
    }
}
"""The engine arguments that make a reranker of a language model of the Qwen3-Reranker kind."""


def quantize(model: Path, out: Path, log: Path) -> Path:
    """Write the 8-bit copy of a model. Raises MeasurementFailed."""
    _make(["-m", "worker", "quantize", str(model), str(out)], log)
    return out


def bundled() -> Path:
    """Return the folder of the bi-encoder, the default model in infra/models.yaml. Raises ConfigurationError."""
    return Path(load_models(MODELS_FILE).default.location())


def _make(arguments: list[str], log: Path) -> str:
    """Run a program that creates a model. Returns its output."""
    with log.open("wb") as errors:
        try:
            return subprocess.run(
                [sys.executable, *arguments],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                timeout=_MAKE_SECONDS,
                start_new_session=True,
                check=True,
            ).stdout
        except subprocess.SubprocessError as error:
            raise MeasurementFailed(f"the model could not be created ({error}): {log.read_text()}") from None
