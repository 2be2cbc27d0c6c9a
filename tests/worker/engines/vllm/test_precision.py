from pathlib import Path

import pytest

from worker.engines.vllm.precision import choose_precision, read_cpu_features

X86 = """\
processor\t: 0
model name\t: some processor with bf16 in its name
flags\t\t: fpu sse avx512f avx512_bf16

processor\t: 1
flags\t\t: fpu sse avx512f avx512_bf16 only_here
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd bf16\nCPU part\t: 0xd40\n"


def features(folder: Path, text: str) -> frozenset[str]:
    path = folder / "cpuinfo"
    path.write_text(text)
    return read_cpu_features(path)


def test_features_are_those_that_all_processors_have(tmp_path: Path) -> None:
    assert features(tmp_path, X86) == {"fpu", "sse", "avx512f", "avx512_bf16"}
    assert features(tmp_path, ARM) == {"fp", "asimd", "bf16"}


def test_without_a_list_of_features_there_are_none(tmp_path: Path) -> None:
    assert features(tmp_path, "processor : 0\n") == frozenset()
    assert read_cpu_features(tmp_path / "no such file") == frozenset()


@pytest.mark.parametrize("feature", ["avx512_bf16", "amx_bf16", "bf16"])
def test_a_cpu_that_computes_bfloat16_natively_uses_it_and_names_the_feature(feature: str) -> None:
    chosen = choose_precision({}, frozenset({"avx2", feature}))
    assert chosen.dtype == "bfloat16"
    assert feature in chosen.reason


@pytest.mark.parametrize("present", [frozenset[str](), frozenset({"avx512f", "amx_int8", "svebf16"})])
def test_any_other_cpu_uses_float32(present: frozenset[str]) -> None:
    assert choose_precision({}, present).dtype == "float32"


@pytest.mark.parametrize("wanted", ["auto", "AUTO", None])
def test_auto_is_the_same_as_no_dtype(wanted: str | None) -> None:
    assert choose_precision({"dtype": wanted}, frozenset({"avx512_bf16"})).dtype == "bfloat16"


def test_on_a_gpu_vllm_chooses() -> None:
    assert choose_precision({}, None).dtype == "auto"


def test_the_operators_precision_overrides_the_choice() -> None:
    for features_of_cpu in (frozenset({"avx512_bf16"}), frozenset[str](), None):
        assert choose_precision({"dtype": "float16"}, features_of_cpu).dtype == "float16"
