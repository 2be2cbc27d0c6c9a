"""Models that cannot be converted. The conversion itself is compared with vLLM in tests/engine."""

import json
from pathlib import Path

import pytest

from worker.__main__ import main


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model folder without weights."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def refusal(capsys: pytest.CaptureFixture[str], model: Path, out: Path) -> str:
    assert main(["quantize", str(model), str(out)]) == 2
    return capsys.readouterr().err


def test_a_folder_without_config_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "MODEL_FOLDER: " in refusal(capsys, tmp_path / "nothing", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_quantized_model_is_refused(capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path) -> None:
    (model / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "fp8"}}))
    assert "is quantized already" in refusal(capsys, model, tmp_path / "out")


def test_an_existing_folder_is_not_touched(capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("data")
    assert "OUT_FOLDER: " in refusal(capsys, model, tmp_path / "out")
    assert (tmp_path / "out" / "precious").read_text() == "data"
