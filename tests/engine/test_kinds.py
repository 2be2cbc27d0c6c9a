"""Every kind of model gets the same scores from the real engine as from reference code without vLLM."""

from typing import Any

import pytest

from tests.engine.conftest import Drive, Outcome
from tests.engine.examples import DOCUMENTS, INSTRUCTION, QUERY, TOLERANCE

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

PAIRS = ["bert", "xlm-roberta", "modernbert", "gte-new"]
ACTIVATED = ["st-identity", "st-sigmoid", "sbert-identity", "sbert-sigmoid"]
TEMPLATED = ["qwen3-reranker", "mxbai-rerank-v2", "bge-reranker-v2-gemma"]
LISTWISE = "jina-reranker-v3"
LATE = "colbert"
KINDS = [*PAIRS, *ACTIVATED, *TEMPLATED, LISTWISE, LATE]

PLAIN = {"query": QUERY, "documents": DOCUMENTS}
INSTRUCTED = PLAIN | {"instruction": INSTRUCTION}


@pytest.fixture(scope="module")
def outcomes(tiny_models: dict[str, dict[str, Any]], drive: Drive) -> dict[str, Outcome]:
    """The outcome of each kind, and of entries that cannot be served."""
    cases = {kind: tiny_models[kind]["spec"] for kind in KINDS}
    qwen = tiny_models["qwen3-reranker"]["spec"]
    cases |= {
        "three-labels": tiny_models["three-labels"]["spec"],
        "token-labels": tiny_models["token-labels"]["spec"],
        "template not set": {key: value for key, value in qwen.items() if key != "score_template"},
        "template unknown": qwen | {"score_template": "no-such-template"},
    }
    found = drive([{"spec": spec, "batches": [PLAIN, INSTRUCTED]} for spec in cases.values()])
    return dict(zip(cases, found, strict=True))


def scores(outcome: Outcome, batch: int = 0) -> list[float]:
    """The scores of a batch that must have succeeded."""
    assert "start_error" not in outcome, outcome
    result = outcome["results"][batch]
    assert "error" not in result, result
    assert (result["errors"], result["truncated"], result["windows"]) == ({}, [], {})
    found: list[float] = result["scores"]
    return found


@pytest.mark.parametrize("kind", [*PAIRS, *ACTIVATED, LATE])
def test_a_model_agrees_with_its_reference(
    kind: str, tiny_models: dict[str, dict[str, Any]], outcomes: dict[str, Outcome]
) -> None:
    expected = tiny_models[kind]["expected"]
    assert scores(outcomes[kind]) == pytest.approx(expected, abs=TOLERANCE)
    # Scores must differ, or wrong scores would pass the tolerance.
    assert max(expected) - min(expected) > 100 * TOLERANCE


@pytest.mark.parametrize("kind", [*TEMPLATED, LISTWISE])
def test_a_model_agrees_with_its_reference_with_and_without_an_instruction(
    kind: str, tiny_models: dict[str, dict[str, Any]], outcomes: dict[str, Outcome]
) -> None:
    expected = tiny_models[kind]["expected"]
    assert scores(outcomes[kind], 0) == pytest.approx(expected["default"], abs=TOLERANCE)
    assert scores(outcomes[kind], 1) == pytest.approx(expected["instructed"], abs=TOLERANCE)
    assert expected["default"] != pytest.approx(expected["instructed"], abs=10 * TOLERANCE)


@pytest.mark.parametrize(("kind", "scale"), [("bert", "logit"), ("qwen3-reranker", "logit"), (LATE, "similarity")])
def test_the_scale_is_logit_or_similarity(kind: str, scale: str, outcomes: dict[str, Outcome]) -> None:
    assert outcomes[kind]["scale"] == scale


@pytest.mark.parametrize("kind", ACTIVATED)
def test_a_raw_score_is_the_logit_for_any_activation_in_the_config(kind: str, outcomes: dict[str, Outcome]) -> None:
    assert scores(outcomes[kind]) == pytest.approx(scores(outcomes["bert"]), abs=TOLERANCE)
    assert all(abs(score) > 1 for score in scores(outcomes[kind])), "a sigmoid would be within 0..1"


@pytest.mark.parametrize("kind", ["bert", LATE])
def test_an_instruction_for_a_model_without_template_is_an_error(kind: str, outcomes: dict[str, Outcome]) -> None:
    assert outcomes[kind]["results"][1] == {"error": "this model takes no instruction: it has no score template"}


def test_an_original_qwen3_reranker_gets_its_template_by_default(
    tiny_models: dict[str, dict[str, Any]], outcomes: dict[str, Outcome]
) -> None:
    expected = tiny_models["qwen3-reranker"]["expected"]["default"]
    assert scores(outcomes["template not set"]) == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("three-labels", "has 3 labels; a reranker must have exactly one"),
        ("token-labels", "cannot score pairs (vLLM offers: token_classify)"),
        ("template unknown", "score_template 'no-such-template' is neither a file nor one of"),
    ],
)
def test_a_model_that_cannot_be_served_is_rejected_in_one_line(
    case: str, message: str, outcomes: dict[str, Outcome]
) -> None:
    error = outcomes[case]["start_error"]
    assert message in error
    assert "\n" not in error
