"""The engine argument of rerankq's own, and entries that do not fit the loaded model."""

from types import SimpleNamespace
from typing import Any

import pytest

from shared.models import ModelSpec
from worker.engines.base import EngineStartError
from worker.engines.scoring.kinds import choose_scoring, pop_cache_bytes


def test_the_embedding_cache_has_256_mib_by_default() -> None:
    spec = ModelSpec(name="m", engine_args={"dtype": "float32"})
    assert pop_cache_bytes(spec) == (spec, 256 * 1024 * 1024)


def test_the_cache_size_is_removed_from_the_arguments_for_vllm() -> None:
    spec = ModelSpec(name="m", engine_args={"dtype": "float32", "embedding_cache_bytes": 0})
    assert pop_cache_bytes(spec) == (ModelSpec(name="m", engine_args={"dtype": "float32"}), 0)
    assert "embedding_cache_bytes" in spec.engine_args


@pytest.mark.parametrize("size", [-1, "1", 1.5, True, None])
def test_an_invalid_cache_size_is_rejected(size: object) -> None:
    with pytest.raises(EngineStartError, match=r"engine_args\.embedding_cache_bytes must be a number, 0 or more"):
        pop_cache_bytes(ModelSpec(name="m", engine_args={"embedding_cache_bytes": size}))


def loaded(**properties: object) -> Any:
    """A loaded model with the properties that `choose_scoring` checks."""
    return SimpleNamespace(**({"kind": "late-interaction", "template": None, "listwise": False} | properties))


@pytest.mark.parametrize("kind", ["late-interaction", "bi-encoder"])
def test_a_template_for_a_model_that_builds_no_pairs_is_rejected(kind: str) -> None:
    spec = ModelSpec(name="m", score_template="qwen3-reranker")
    with pytest.raises(EngineStartError, match=f"'m' has a score_template, but a {kind} model builds no pairs"):
        choose_scoring(spec, loaded(kind=kind, template="{{ messages }}"), 0)


def test_a_listwise_model_without_listwise_in_its_entry_is_rejected() -> None:
    with pytest.raises(EngineStartError, match="'m' compares documents with each other; set `listwise: true`"):
        choose_scoring(ModelSpec(name="m"), loaded(listwise=True), 0)
