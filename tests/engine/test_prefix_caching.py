"""A language model computes the beginning that the prompts of a request share once, not once for each document."""

from typing import Any

import pytest

from tests.engine.conftest import Drive
from tests.engine.examples import TOLERANCE

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

DOCUMENTS = 8
BATCH = {
    "query": "which animals live in the bamboo forests of the mountains " * 2,
    "documents": [f"document {number} is about the panda" for number in range(DOCUMENTS)],
}


def test_only_the_first_document_computes_the_template_and_the_query(
    tiny_models: dict[str, dict[str, Any]], drive: Drive
) -> None:
    spec = tiny_models["qwen3-reranker"]["spec"]
    apart = spec | {"engine_args": spec.get("engine_args", {}) | {"enable_prefix_caching": False}}
    with_cache, without = drive([{"spec": entry, "batches": [BATCH]} for entry in (spec, apart)])
    (cached,), (computed,) = with_cache["results"], without["results"]

    assert without["cached_tokens"] == 0
    prompt = cached["prompt_tokens"] / DOCUMENTS
    assert with_cache["cached_tokens"] > 0.6 * prompt * (DOCUMENTS - 1)
    assert cached["scores"] == pytest.approx(computed["scores"], abs=TOLERANCE)
