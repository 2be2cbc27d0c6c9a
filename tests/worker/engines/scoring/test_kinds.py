"""What an entry says that is ours and not vLLM's, and whether it suits the model that was loaded."""

from types import SimpleNamespace
from typing import Any

import pytest

from shared.models import ModelSpec
from worker.engines.base import EngineStartError
from worker.engines.scoring.kinds import choose_scoring, pop_cache_bytes


def test_the_cache_of_embeddings_is_of_256_mib_unless_told_otherwise() -> None:
    spec = ModelSpec(name="m", engine_args={"dtype": "float32"})
    assert pop_cache_bytes(spec) == (spec, 256 * 1024 * 1024)


def test_its_size_is_taken_out_of_what_vllm_sees() -> None:
    spec = ModelSpec(name="m", engine_args={"dtype": "float32", "embedding_cache_bytes": 0})
    assert pop_cache_bytes(spec) == (ModelSpec(name="m", engine_args={"dtype": "float32"}), 0)
    assert "embedding_cache_bytes" in spec.engine_args


@pytest.mark.parametrize("size", [-1, "1", 1.5, True, None])
def test_a_size_that_is_no_number_of_bytes_is_refused(size: object) -> None:
    with pytest.raises(EngineStartError, match=r"engine_args\.embedding_cache_bytes must be a number, 0 or more"):
        pop_cache_bytes(ModelSpec(name="m", engine_args={"embedding_cache_bytes": size}))


def loaded(**facts: object) -> Any:
    """As much of a loaded model as has to be known to refuse its entry."""
    return SimpleNamespace(**({"kind": "late-interaction", "template": None, "listwise": False} | facts))


@pytest.mark.parametrize("kind", ["late-interaction", "bi-encoder"])
def test_a_template_for_a_model_that_builds_no_pairs_is_refused(kind: str) -> None:
    spec = ModelSpec(name="m", score_template="qwen3-reranker")
    with pytest.raises(EngineStartError, match=f"'m' has a score_template, but a {kind} model builds no pairs"):
        choose_scoring(spec, loaded(kind=kind, template="{{ messages }}"), 0)


def test_a_listwise_model_whose_entry_does_not_say_so_is_refused() -> None:
    with pytest.raises(EngineStartError, match="'m' compares documents with each other; say `listwise: true`"):
        choose_scoring(ModelSpec(name="m"), loaded(listwise=True), 0)
