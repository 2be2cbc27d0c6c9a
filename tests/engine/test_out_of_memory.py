"""A real vLLM engine goes on after a step that ran out of memory, and its scores stay right."""

from typing import Any

import pytest

from tests.engine.conftest import Drive, Outcome
from tests.engine.examples import QUERY, TOLERANCE

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

SHORT = [f"panda number {number} eats bamboo" for number in range(12)]
LONG = "the giant panda is a bear from China " * 20
BATCHES: list[dict[str, Any]] = [
    {"query": QUERY, "documents": SHORT},
    {"query": QUERY, "documents": [*SHORT[:2], LONG]},
    {"query": "who eats bamboo", "documents": SHORT, "priority": 1000},
]
ENCODER, CAUSAL = "bert", "qwen3-reranker"
"""The second one keeps a prefix cache, which must not contain what a failed step should have computed."""


@pytest.fixture(scope="module")
def outcomes(tiny_models: dict[str, dict[str, Any]], drive: Drive) -> dict[tuple[str, str], Outcome]:
    """By model and fault."""
    cases: dict[tuple[str, str], dict[str, Any] | None] = {
        (ENCODER, "none"): None,
        (ENCODER, "twice"): {"tokens": 0, "failures": 2},
        # The prompts of the language model are all longer than this.
        (ENCODER, "large steps"): {"tokens": 150, "failures": None},
        (CAUSAL, "none"): None,
        (CAUSAL, "once"): {"tokens": 0, "failures": 1},
    }
    found = drive(
        [
            {"spec": tiny_models[kind]["spec"], "batches": BATCHES, "memory": memory}
            for (kind, _), memory in cases.items()
        ]
    )
    return dict(zip(cases, found, strict=True))


def scores(outcome: Outcome, part: str = "results") -> list[list[float]]:
    assert "start_error" not in outcome, outcome
    assert all("scores" in result for result in outcome[part]), outcome[part]
    return [result["scores"] for result in outcome[part]]


@pytest.mark.parametrize(("kind", "fault", "failures"), [(ENCODER, "twice", 2), (CAUSAL, "once", 1)])
def test_a_step_that_fails_is_repeated_and_every_score_is_right(
    kind: str, fault: str, failures: int, outcomes: dict[tuple[str, str], Outcome]
) -> None:
    outcome, expected = outcomes[kind, fault], scores(outcomes[kind, "none"])
    assert len(outcome["failed_steps"]) == failures
    for part in ("results", "later"):
        for found, wanted in zip(scores(outcome, part), expected, strict=True):
            assert found == pytest.approx(wanted, abs=TOLERANCE)


def test_steps_shrink_until_they_fit_and_a_prompt_that_never_fits_fails_its_batch_alone(
    outcomes: dict[tuple[str, str], Outcome],
) -> None:
    outcome, expected = outcomes[ENCODER, "large steps"], scores(outcomes[ENCODER, "none"])
    assert outcome["failed_steps"], "nothing has failed"
    for part in ("results", "later"):
        good, bad, background = outcome[part]
        assert bad["transient"]
        assert bad["error"].startswith("the engine has too little memory for one prompt of ")
        assert good["scores"] == pytest.approx(expected[0], abs=TOLERANCE)
        assert background["scores"] == pytest.approx(expected[2], abs=TOLERANCE)
