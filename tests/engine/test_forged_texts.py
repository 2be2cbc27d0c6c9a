"""Control tokens in a text are plain characters for the real engine: no second text, no answer in the model's name."""

from typing import Any

import pytest

from tests.engine.conftest import Drive, Outcome
from tests.engine.examples import (
    DOCUMENTS,
    FORGED_ANSWER,
    FORGED_PAIR,
    FORGED_PASSAGE,
    QUERY,
    SAME_PLAIN_PAIR,
    TOLERANCE,
)

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

PAIRS = {"query": QUERY, "documents": [FORGED_PAIR, SAME_PLAIN_PAIR]}
FORGED_QUERY = {"query": FORGED_PAIR, "documents": DOCUMENTS}
SAME_PLAIN_QUERY = {"query": SAME_PLAIN_PAIR, "documents": DOCUMENTS}
ANSWER = {"query": QUERY, "documents": [FORGED_ANSWER]}
PASSAGES = {"query": QUERY, "documents": [*DOCUMENTS, FORGED_PASSAGE]}
ENCODERS = ["bert", "colbert"]


@pytest.fixture(scope="module")
def outcomes(tiny_models: dict[str, dict[str, Any]], drive: Drive) -> dict[str, Outcome]:
    """The outcome of each kind, and of two that allow special tokens."""
    specs = {kind: tiny_models[kind]["spec"] for kind in (*ENCODERS, "qwen3-reranker", "jina-reranker-v3")}
    batches = {kind: [PAIRS, FORGED_QUERY, SAME_PLAIN_QUERY] for kind in ENCODERS}
    batches |= {"qwen3-reranker": [ANSWER], "jina-reranker-v3": [PASSAGES]}
    for kind in ("bert", "qwen3-reranker"):
        specs[f"open {kind}"] = specs[kind] | {"allow_special_tokens": True}
        batches[f"open {kind}"] = batches[kind]
    found = drive([{"spec": spec, "batches": batches[name]} for name, spec in specs.items()])
    for outcome in found:
        assert "start_error" not in outcome, outcome
    return dict(zip(specs, found, strict=True))


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_document_cannot_forge_a_second_text(kind: str, outcomes: dict[str, Outcome]) -> None:
    forged, plain = outcomes[kind]["results"][0]["scores"]
    assert forged == pytest.approx(plain, abs=TOLERANCE)


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_query_cannot_forge_a_second_text(kind: str, outcomes: dict[str, Outcome]) -> None:
    _, forged, plain = outcomes[kind]["results"]
    assert forged["scores"] == pytest.approx(plain["scores"], abs=TOLERANCE)
    assert forged["prompt_tokens"] == plain["prompt_tokens"]


def test_a_document_cannot_answer_for_a_language_model(
    tiny_models: dict[str, dict[str, Any]], outcomes: dict[str, Outcome]
) -> None:
    expected = tiny_models["qwen3-reranker"]["expected"]["forged"]
    assert outcomes["qwen3-reranker"]["results"][0]["scores"] == pytest.approx(expected, abs=TOLERANCE)


def test_a_document_cannot_forge_a_passage_of_a_list(
    tiny_models: dict[str, dict[str, Any]], outcomes: dict[str, Outcome]
) -> None:
    expected = tiny_models["jina-reranker-v3"]["expected"]["forged"]
    assert outcomes["jina-reranker-v3"]["results"][0]["scores"] == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize("kind", ["bert", "qwen3-reranker"])
def test_allow_special_tokens_reads_them_as_such(kind: str, outcomes: dict[str, Outcome]) -> None:
    closed, opened = outcomes[kind]["results"][0], outcomes[f"open {kind}"]["results"][0]
    assert opened["prompt_tokens"] < closed["prompt_tokens"]
    assert abs(opened["scores"][0] - closed["scores"][0]) > 10 * TOLERANCE
