"""Documents with cached embeddings are not computed again, and get the same scores."""

import random
from typing import Any

import pytest

from infra.local.stack import MODELS_FILE
from shared.models import load_models
from tests.engine.conftest import Drive, Outcome
from tests.engine.examples import QUERY, TOLERANCE

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

SHUFFLE = random.Random(7)
WORDS = ["the", "giant", "panda", "is", "a", "bear", "species", "endemic", "to", "china", "and", "eats", "bamboo"]
MANY = [" ".join(SHUFFLE.choice(WORDS) for _ in range(100)) for _ in range(40)]
LONG = " ".join(SHUFFLE.choice(WORDS) for _ in range(700))
SPECIAL = 2
"""The special tokens of [CLS] text [SEP]."""

BATCHES: dict[str, dict[str, Any]] = {
    "new": {"query": QUERY, "documents": MANY},
    "another query": {"query": "who eats bamboo", "documents": MANY},
    "the same again": {"query": "who eats bamboo", "documents": MANY[:3]},
    "other limits": {"query": "who eats bamboo", "documents": MANY[:3], "max_tokens_per_doc": 10},
    "twice in a batch": {"query": "who eats bamboo", "documents": ["new bear", "new bear", "who eats bamboo"]},
    "windows": {"query": QUERY, "documents": [LONG, "bear"], "max_chunks_per_doc": 20},
    "windows again": {"query": QUERY, "documents": ["bear", LONG], "max_chunks_per_doc": 20},
    "truncated": {"query": QUERY, "documents": [LONG]},
    "truncated again": {"query": QUERY, "documents": [LONG]},
    "surrogate": {"query": QUERY, "documents": ["bear \ud800", "bear"]},
}


@pytest.fixture(scope="module")
def outcomes(drive: Drive) -> list[Outcome]:
    """The outcomes with the cache, and without it."""
    spec = {"name": "minilm", "source": load_models(MODELS_FILE).default.location()}
    without = spec | {"engine_args": {"embedding_cache_bytes": 0}}
    return drive([{"spec": entry, "batches": list(BATCHES.values())} for entry in (spec, without)])


@pytest.fixture(scope="module")
def warm(outcomes: list[Outcome]) -> dict[str, dict[str, Any]]:
    return dict(zip(BATCHES, outcomes[0]["results"], strict=True))


@pytest.fixture(scope="module")
def cold(outcomes: list[Outcome]) -> dict[str, dict[str, Any]]:
    return dict(zip(BATCHES, outcomes[1]["results"], strict=True))


@pytest.mark.parametrize("name", BATCHES)
def test_scores_are_the_same_with_and_without_the_cache(
    name: str, warm: dict[str, dict[str, Any]], cold: dict[str, dict[str, Any]]
) -> None:
    assert warm[name]["scores"] == pytest.approx(cold[name]["scores"], abs=TOLERANCE)
    for field in ("windows", "truncated", "errors"):
        assert warm[name][field] == cold[name][field]


def test_cached_documents_with_a_new_query_compute_only_the_query(
    warm: dict[str, dict[str, Any]], cold: dict[str, dict[str, Any]]
) -> None:
    assert warm["another query"]["prompt_tokens"] < 10
    assert cold["another query"]["prompt_tokens"] > 4000


def test_a_fully_cached_batch_computes_nothing(warm: dict[str, dict[str, Any]]) -> None:
    assert warm["the same again"]["prompt_tokens"] == 0


def test_other_limits_need_other_embeddings(warm: dict[str, dict[str, Any]]) -> None:
    result = warm["other limits"]
    assert result["prompt_tokens"] == 3 * (10 + SPECIAL)
    assert result["truncated"] == [0, 1, 2]
    assert result["scores"] != pytest.approx(warm["the same again"]["scores"], abs=TOLERANCE)


def test_equal_texts_of_a_batch_are_computed_once(cold: dict[str, dict[str, Any]]) -> None:
    result = cold["twice in a batch"]
    assert result["prompt_tokens"] == (3 + SPECIAL) + (2 + SPECIAL)
    assert result["scores"][0] == result["scores"][1]
    assert result["scores"][2] == pytest.approx(1, abs=1e-5)


def test_windows_and_truncation_are_cached_with_the_embedding(warm: dict[str, dict[str, Any]]) -> None:
    first, last = warm["windows"]["windows"]["0"]
    assert 0 <= first < last <= len(LONG)
    assert warm["windows again"]["prompt_tokens"] == 0
    assert warm["windows again"]["windows"] == {"1": [first, last]}
    assert warm["truncated again"]["prompt_tokens"] == 0
    assert warm["truncated again"]["truncated"] == [0]


def test_a_document_that_cannot_be_tokenized_fails_alone(cold: dict[str, dict[str, Any]]) -> None:
    assert cold["surrogate"]["errors"] == {"0": "this document cannot be tokenized for this model"}
    assert cold["surrogate"]["scores"][1] is not None
