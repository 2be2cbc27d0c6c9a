"""The two models that are measured: a made cross-encoder, and the bi-encoder that the service ships with."""

import subprocess
import sys
from pathlib import Path

from bench.generator import ROOT, MeasurementFailed
from infra.local.stack import MODELS_FILE
from shared.models import load_models

_MAKE_SECONDS = 120


def make_cross_encoder(folder: Path, log: Path) -> None:
    """A cross-encoder of the MiniLM-L6 shape with seeded weights. Raises MeasurementFailed."""
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
            raise MeasurementFailed(f"the cross-encoder could not be made ({error}): {log.read_text()}") from None


def bundled() -> Path:
    """The folder of the bi-encoder that infra/models.yaml names first. Raises ConfigurationError."""
    return Path(load_models(MODELS_FILE).default.location())
