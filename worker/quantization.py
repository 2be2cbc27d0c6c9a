"""Writes a copy of a model with 8-bit weights, which vLLM multiplies with 8-bit activations (W8A8).

Owns the format: one scale per output channel of a weight, in the layout of compressed-tensors; vLLM quantizes the
activations of each token while it computes. Only the weights inside the model's numbered layers are converted;
embeddings and the head keep their precision. Needs no sample texts, and no package beyond those of the worker.
"""

import argparse
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shared.errors import ConfigurationError

_IN_LAYER = re.compile(r"(^|\.)(layers?|blocks|h)\.\d+\..*\.weight$")
_WEIGHT_SUFFIXES = {".safetensors", ".bin", ".pt", ".pth", ".h5", ".onnx", ".ot", ".msgpack", ".gguf"}
_INDEX_SUFFIX = ".index.json"
_LARGEST = 127
"""The largest 8-bit weight. The range is symmetric: -128 is not used."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="MODEL_FOLDER", help="a folder with config.json and *.safetensors")
    parser.add_argument("out", type=Path, metavar="OUT_FOLDER", help="a new folder for the 8-bit copy")


def main(options: argparse.Namespace) -> int:
    """Convert and print what was done. Raises ConfigurationError."""
    names = quantize(options.source, options.out)
    print(
        f"{options.out}: {len(names)} weights in 8 bits. Compare its ranking with the original's before you serve it."
    )
    return 0


def quantize(model: Path, out: Path) -> list[str]:
    """Write the 8-bit copy of the model in `model` to the new folder `out`. Returns the names of the converted weights.

    Raises ConfigurationError when the model cannot be converted, or `out` exists; `out` is then not left behind.
    """
    config = _read_config(model)
    if out.exists():
        raise ConfigurationError(f"OUT_FOLDER: {out} exists already", param="out")
    out.mkdir(parents=True)
    try:
        converted, kept = _convert_weights(model, out)
        if not converted:
            raise ConfigurationError(f"MODEL_FOLDER: no weight of {model} is inside a numbered layer", param="model")
        _copy_other_files(model, out)
        config["quantization_config"] = _quantization_config(kept)
        (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    return converted


def _read_config(model: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((model / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"MODEL_FOLDER: {model / 'config.json'} cannot be read: {error}", param="model"
        ) from error
    if "quantization_config" in config:
        raise ConfigurationError(f"MODEL_FOLDER: {model} is quantized already", param="model")
    return config


def _convert_weights(model: Path, out: Path) -> tuple[list[str], list[str]]:
    """Write the tensors, one file at a time. Returns the names of converted weights, and of matrices that were kept."""
    # Imported late: it imports torch.
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    files = sorted(model.glob("*.safetensors"))
    if not files:
        raise ConfigurationError(f"MODEL_FOLDER: {model} has no *.safetensors", param="model")
    converted: list[str] = []
    kept: list[str] = []
    shards: dict[str, str] = {}
    for file in files:
        try:
            loaded = load_file(file)
        except SafetensorError as error:
            raise ConfigurationError(f"MODEL_FOLDER: {file} cannot be read: {error}", param="model") from error
        tensors: dict[str, Any] = {}
        for name, tensor in loaded.items():
            if tensor.dim() == 2 and tensor.is_floating_point() and _IN_LAYER.search(name):
                tensors |= _quantized(name, tensor)
                converted.append(name)
            else:
                tensors[name] = tensor
                if tensor.dim() == 2:
                    kept.append(name)
        save_file(tensors, out / file.name, metadata={"format": "pt"})
        shards |= dict.fromkeys(tensors, file.name)
    if len(files) > 1:
        index = {"metadata": {}, "weight_map": shards}
        (out / "model.safetensors.index.json").write_text(json.dumps(index))
    return converted, kept


def _quantized(name: str, weight: Any) -> dict[str, Any]:
    """The 8-bit weight and the scale of each of its rows, by tensor name."""
    exact = weight.float()
    scale = exact.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / _LARGEST
    rounded = (exact / scale).round().clamp(-_LARGEST, _LARGEST)
    return {name: rounded.char(), f"{name}_scale": scale}


def _copy_other_files(model: Path, out: Path) -> None:
    """Copy the tokenizer and the rest, without weights in other formats."""
    for source in _files(model):
        target = out / source.relative_to(model)
        if source.suffix in _WEIGHT_SUFFIXES or source.name.endswith(_INDEX_SUFFIX) or target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def _files(model: Path) -> Iterator[Path]:
    """The files of a model folder, without hidden ones, such as a hub's cache."""
    for path in sorted(model.rglob("*")):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(model).parts):
            yield path


def _quantization_config(kept: list[str]) -> dict[str, Any]:
    integers = {"num_bits": 8, "type": "int"}
    return {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": integers | {"symmetric": True, "strategy": "channel", "dynamic": False},
                # Asymmetric: what follows a GELU is hardly ever negative, and would use half of a symmetric range.
                "input_activations": integers | {"symmetric": False, "strategy": "token", "dynamic": True},
            }
        },
        # vLLM adds the last two to a language model that it uses as a classifier.
        "ignore": sorted({*(name.removesuffix(".weight") for name in kept), "lm_head", "score"}),
    }
