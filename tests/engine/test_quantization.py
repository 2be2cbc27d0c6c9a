"""`python -m worker quantize`: vLLM loads the 8-bit copy, and its scores stay near those of the original."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from infra.local.stack import MODELS_FILE
from shared.models import load_models
from tests.engine.conftest import Drive, Outcome, run_program
from tests.engine.examples import QUERY
from tests.engine.test_precision import DOCUMENTS

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

BOUND = 0.05


KINDS = ["xlm-roberta", "modernbert", "qwen3-reranker"]


@pytest.fixture(scope="module")
def original() -> Path:
    """The bundled model: a trained bi-encoder."""
    return Path(load_models(MODELS_FILE).default.location())


@pytest.fixture(scope="module")
def copy(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 8-bit copy of the bundled model, whose weights were divided into two files, as those of large models are."""
    folder = tmp_path_factory.mktemp("quantized")
    divided = folder / "divided"
    shutil.copytree(original, divided, ignore=shutil.ignore_patterns("*.safetensors"))
    weights = load_file(original / "model.safetensors")
    names = sorted(weights)
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        save_file({name: weights[name] for name in part}, divided / f"model-0000{number}-of-00002.safetensors")
    return quantize(divided, folder / "copy")


def quantize(source: Path, out: Path) -> Path:
    assert f"{out}: " in run_program("worker", "quantize", str(source), str(out), stdin=None)
    return out


def test_matrices_inside_layers_have_8_bits_and_a_scale_per_row(original: Path, copy: Path) -> None:
    before = load_file(original / "model.safetensors")
    after = {name: tensor for file in copy.glob("*.safetensors") for name, tensor in load_file(file).items()}
    converted = [name for name, weight in after.items() if weight.dtype == np.int8]
    assert len(converted) == 36
    for name in converted:
        weight, scale = after.pop(name), after.pop(f"{name}_scale")
        assert scale.shape == (len(weight), 1)
        assert (np.abs(weight * scale - before.pop(name)) <= scale / 2 * 1.001).all()
    assert set(after) == set(before)
    assert all(np.array_equal(after[name], before[name]) for name in after)


def test_the_copy_has_the_models_other_files_and_says_how_it_is_quantized(original: Path, copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    quantization = config.pop("quantization_config")
    assert config == json.loads((original / "config.json").read_text())
    assert quantization["quant_method"] == "compressed-tensors"
    assert (copy / "tokenizer.json").read_bytes() == (original / "tokenizer.json").read_bytes()
    assert sum(file.stat().st_size for file in copy.glob("*.safetensors")) < 0.7 * (
        (original / "model.safetensors").stat().st_size
    )


def test_scores_of_a_trained_model_stay_near_those_of_the_original(original: Path, copy: Path, drive: Drive) -> None:
    batch: dict[str, Any] = {"query": QUERY, "documents": DOCUMENTS}
    cases = [{"spec": {"name": "m", "source": str(source)}, "batches": [batch]} for source in (original, copy)]
    exact, rounded = (scores(outcome) for outcome in drive(cases))
    assert exact != rounded
    assert max(abs(one - other) for one, other in zip(exact, rounded, strict=True)) < BOUND


@pytest.mark.long
def test_other_kinds_of_models_can_be_converted(
    tiny_models: dict[str, dict[str, Any]], tmp_path: Path, drive: Drive
) -> None:
    cases = []
    for kind in KINDS:
        spec = tiny_models[kind]["spec"]
        copied = quantize(Path(spec["source"]), tmp_path / kind)
        batch = {"query": QUERY, "documents": DOCUMENTS[4:20]}
        cases += [{"spec": entry, "batches": [batch]} for entry in (spec, spec | {"source": str(copied)})]
    found = [scores(outcome) for outcome in drive(cases)]
    for kind, exact, rounded in zip(KINDS, found[::2], found[1::2], strict=True):
        assert exact != rounded, kind
        # The weights are random: a model that was loaded wrongly would have unrelated scores.
        assert np.corrcoef(exact, rounded)[0, 1] > 0.95, kind


def scores(outcome: Outcome) -> list[float]:
    assert "start_error" not in outcome, outcome
    found: list[float] = outcome["results"][0]["scores"]
    return found
