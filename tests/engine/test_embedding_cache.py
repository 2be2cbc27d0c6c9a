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
MODEL_TOKENS = 256
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
    "last words": {"query": QUERY, "documents": [" ".join(LONG.split()[-MODEL_TOKENS + SPECIAL :])]},
    "without its start": {"query": QUERY, "documents": [LONG], "truncation": "start"},
    "short prompt": {"query": QUERY, "documents": MANY[:3], "max_prompt_tokens": 10 + SPECIAL},
    "ten tokens": {"query": QUERY, "documents": MANY[:3], "max_tokens_per_doc": 10},
    "fits": {"query": QUERY, "documents": MANY[:3], "truncation": "none"},
}
FORBIDDEN: list[dict[str, Any]] = [
    {"query": QUERY, "documents": ["bear", LONG], "truncation": "none"},
    {"query": LONG, "documents": ["bear"], "truncation": "none"},
]


@pytest.fixture(scope="module")
def outcomes(drive: Drive) -> list[Outcome]:
    """The outcomes with the cache, and without it."""
    spec = {"name": "minilm", "source": load_models(MODELS_FILE).default.location()}
    without = spec | {"engine_args": {"embedding_cache_bytes": 0}}
    return drive([{"spec": entry, "batches": [*BATCHES.values(), *FORBIDDEN]} for entry in (spec, without)])


@pytest.fixture(scope="module")
def warm(outcomes: list[Outcome]) -> dict[str, dict[str, Any]]:
    return dict(zip(BATCHES, outcomes[0]["results"], strict=False))


@pytest.fixture(scope="module")
def cold(outcomes: list[Outcome]) -> dict[str, dict[str, Any]]:
    return dict(zip(BATCHES, outcomes[1]["results"], strict=False))


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


def test_the_end_of_a_document_has_an_embedding_of_its_own(warm: dict[str, dict[str, Any]]) -> None:
    end, start = warm["truncated again"], warm["without its start"]
    assert start["truncated"] == [0]
    assert start["scores"] == pytest.approx(warm["last words"]["scores"], abs=TOLERANCE)
    assert start["scores"] != pytest.approx(end["scores"], abs=TOLERANCE)


def test_a_limit_of_the_prompt_includes_special_tokens(cold: dict[str, dict[str, Any]]) -> None:
    result, ten_tokens = cold["short prompt"], cold["ten tokens"]
    assert result["truncated"] == [0, 1, 2]
    assert result["scores"] == pytest.approx(ten_tokens["scores"], abs=TOLERANCE)
    assert result["prompt_tokens"] == ten_tokens["prompt_tokens"]


def test_a_text_that_is_too_long_is_refused_even_when_its_truncated_embedding_is_cached(
    outcomes: list[Outcome], warm: dict[str, dict[str, Any]], cold: dict[str, dict[str, Any]]
) -> None:
    document, query = (result["error"] for result in outcomes[0]["results"][len(BATCHES) :])
    assert document.startswith("1: 7")
    assert query.startswith("query: 7")
    assert all(error.endswith("tokens with special tokens, but the limit is 256") for error in (document, query))
    assert warm["fits"]["scores"] == pytest.approx(cold["new"]["scores"][:3], abs=TOLERANCE)


def test_a_document_that_cannot_be_tokenized_fails_alone(cold: dict[str, dict[str, Any]]) -> None:
    assert cold["surrogate"]["errors"] == {"0": "this document cannot be tokenized for this model"}
    assert cold["surrogate"]["scores"][1] is not None
