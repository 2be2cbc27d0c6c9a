"""What bfloat16, the default on CPUs that compute it natively, changes in the scores."""

import itertools
import math
import random
from typing import Any

import pytest

from infra.local.stack import MODELS_FILE
from shared.models import load_models
from tests.engine.conftest import Drive, Outcome
from tests.engine.examples import QUERY
from worker.engines.vllm.precision import choose_precision, read_cpu_features

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        choose_precision({}, read_cpu_features()).dtype != "bfloat16", reason="this CPU has no native bfloat16"
    ),
]

BOUND = 0.02
WORDS = [
    "the",
    "giant",
    "panda",
    "is",
    "a",
    "bear",
    "species",
    "endemic",
    "to",
    "china",
    "and",
    "eats",
    "bamboo",
    "car",
]
SHUFFLE = random.Random(7)
DOCUMENTS = [
    "hi",
    "it is a bear",
    "The giant panda is a bear species endemic to China.",
    "The car eats bamboo in Paris. " * 30,
    *(" ".join(SHUFFLE.choice(WORDS) for _ in range(words)) for words in range(2, 62)),
]


@pytest.fixture(scope="module")
def outcomes(drive: Drive, made_cross_encoder: str) -> dict[str, list[Outcome]]:
    """Per model: the outcome in float32, and in the precision that the worker chooses."""
    sources = {"trained": load_models(MODELS_FILE).default.location(), "made": made_cross_encoder}
    cases: list[dict[str, Any]] = [
        {
            "spec": {"name": name, "source": source, "engine_args": {"dtype": dtype}},
            "batches": [{"query": QUERY, "documents": DOCUMENTS}],
        }
        for name, source in sources.items()
        for dtype in ("float32", "auto")
    ]
    found = drive(cases)
    return {"trained": found[:2], "made": found[2:]}


def normalized(outcome: Outcome) -> list[float]:
    """The scores as callers get them: the sigmoid of a logit, a similarity as it is."""
    assert "start_error" not in outcome, outcome
    scores: list[float] = outcome["results"][0]["scores"]
    return [1 / (1 + math.exp(-score)) for score in scores] if outcome["scale"] == "logit" else scores


@pytest.mark.parametrize("model", ["trained", "made"])
def test_bfloat16_moves_no_score_by_more_than_the_bound(model: str, outcomes: dict[str, list[Outcome]]) -> None:
    exact, rounded = (normalized(outcome) for outcome in outcomes[model])
    assert exact != rounded, "both were computed in the same precision"
    assert max(abs(one - other) for one, other in zip(exact, rounded, strict=True)) < BOUND
    assert max(exact) - min(exact) > 10 * BOUND, "the scores must differ, or any error would be within the bound"


@pytest.mark.parametrize("model", ["trained", "made"])
def test_bfloat16_swaps_no_documents_that_are_further_apart(model: str, outcomes: dict[str, list[Outcome]]) -> None:
    exact, rounded = (normalized(outcome) for outcome in outcomes[model])
    apart = [pair for pair in itertools.permutations(range(len(exact)), 2) if exact[pair[0]] - exact[pair[1]] > BOUND]
    assert len(apart) > len(exact)
    assert [(high, low) for high, low in apart if rounded[high] <= rounded[low]] == []


@pytest.mark.parametrize("model", ["trained", "made"])
def test_the_worker_chooses_bfloat16_here(model: str, outcomes: dict[str, list[Outcome]]) -> None:
    assert [outcome["dtype"] for outcome in outcomes[model]] == ["float32", "bfloat16"]
