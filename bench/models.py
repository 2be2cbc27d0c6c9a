"""The two models of the benchmarks: a generated cross-encoder, and the bi-encoder that the service ships with."""

import subprocess
import sys
from pathlib import Path

from bench.generator import ROOT, MeasurementFailed
from infra.local.stack import MODELS_FILE
from shared.models import load_models

_MAKE_SECONDS = 120


def make_cross_encoder(folder: Path, log: Path) -> None:
    """Create a cross-encoder of the MiniLM-L6 shape with seeded weights. Raises MeasurementFailed."""
    command = [sys.executable, "tests/engine/reference.py", "make", str(folder), "1"]
    with log.open("wb") as output:
        try:
            subprocess.run(
                command,
                cwd=ROOT,
                stdout=output,
                stderr=output,
                timeout=_MAKE_SECONDS,
                start_new_session=True,
                check=True,
            )
        except subprocess.SubprocessError as error:
            raise MeasurementFailed(f"the cross-encoder could not be created ({error}): {log.read_text()}") from None


def bundled() -> Path:
    """Return the folder of the bi-encoder, the default model in infra/models.yaml. Raises ConfigurationError."""
    return Path(load_models(MODELS_FILE).default.location())
