"""Limits, windows and failing documents, with real models. Every word of `WORDS` is one token."""

import random
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from tests.engine.conftest import Drive, Outcome
from tests.engine.examples import DOCUMENTS, QUERY, TOLERANCE
from worker.engines.scoring.windows import character_range, token_windows

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

SHUFFLE = random.Random(7)
WORDS = ["giant", "panda", "is", "bear", "red", "china"]
LIMIT = 256
"""The longest prompt of the small encoders, in tokens."""
SPECIAL = 3
"""The special tokens of [CLS] query [SEP] document [SEP]."""
QUERY_TOKENS = 2
SHORT_QUERY = "red panda"
LONG = " ".join(SHUFFLE.choice(WORDS) for _ in range(600))
NOT_TOKENIZABLE = "this document cannot be tokenized for this model"

Results = dict[str, dict[str, Any]]


def words(number: int) -> str:
    """The first words of the long document."""
    return " ".join(LONG.split()[:number])


def windows_of(spec: dict[str, Any], size: int, overlap: int, at_most: int) -> list[tuple[int, int]]:
    """The expected character ranges of the long document's windows."""
    tokenizer = Tokenizer.from_file(str(Path(spec["source"]) / "tokenizer.json"))
    offsets = tokenizer.encode(LONG, add_special_tokens=False).offsets
    return [character_range(offsets, *window) for window in token_windows(len(offsets), size, overlap, at_most)]


def batch(*documents: str, query: str = SHORT_QUERY, **fields: Any) -> dict[str, Any]:
    return {"query": query, "documents": list(documents)} | fields


DOCUMENT_TOKENS = LIMIT - SPECIAL - QUERY_TOKENS
LIMITED: dict[str, dict[str, Any]] = {
    "fits": batch(words(DOCUMENT_TOKENS)),
    "one too long": batch(words(DOCUMENT_TOKENS + 1), "bear"),
    "long": batch(LONG),
    "long query": batch("bear", query=LONG),
    "limited document": batch(LONG, "bear", max_tokens_per_doc=5),
    "five words": batch(words(5), "bear"),
    "limited query": batch("bear", query=LONG, max_tokens_per_query=2),
    "two-word query": batch("bear", query=words(2)),
    "surrogate": batch("bear", "a \ud800 lone surrogate", "panda"),
    "surrogate in windows": batch("bear", "a \ud800 lone surrogate", LONG, max_chunks_per_doc=3),
    "surrogate query": batch("bear", query="a \ud800 lone surrogate"),
    "ordinary": batch("bear", "panda"),
    "windowed": batch(LONG, "bear", max_chunks_per_doc=100),
    "few windows": batch(LONG, max_chunks_per_doc=2, max_tokens_per_doc=40, overlap_tokens=7),
    "overlap of a window": batch(LONG, max_chunks_per_doc=2, max_tokens_per_doc=40, overlap_tokens=40),
    "windows of a long query": batch(LONG, query=LONG, max_chunks_per_doc=2),
}


def windowed_batches(spec: dict[str, Any], size: int, overlap: int) -> list[dict[str, Any]]:
    """A batch whose long document the engine splits, and a batch with the same windows as separate documents."""
    windows = windows_of(spec, size, overlap, 100)
    return [
        batch(LONG, "bear", max_chunks_per_doc=100, max_tokens_per_doc=size, overlap_tokens=overlap),
        batch(*(LONG[first:last] for first, last in windows)),
    ]


@pytest.fixture(scope="module")
def outcomes(tiny_models: dict[str, dict[str, Any]], drive: Drive) -> dict[str, Outcome]:
    specs = {kind: tiny_models[kind]["spec"] for kind in ("bert", "colbert", "qwen3-reranker", "jina-reranker-v3")}
    cases = [{"spec": specs["bert"], "batches": [*LIMITED.values(), *windowed_batches(specs["bert"], 30, 10)]}]
    for kind in ("colbert", "qwen3-reranker"):
        batches = windowed_batches(specs[kind], 50, 10)
        cases.append({"spec": specs[kind], "batches": [*batches, batch(LONG * 4, "bear"), batch("bear", query=LONG)]})
    lists = [batch(LONG * 2, "bear"), batch("bear", "panda"), batch("a \ud800", "bear", "panda"), batch(*["a"] * 900)]
    cases.append({"spec": specs["jina-reranker-v3"], "batches": lists})
    not_finite = {"query": QUERY, "documents": [DOCUMENTS[0], "it eats bamboo", DOCUMENTS[1]]}
    cases.append({"spec": tiny_models["bert-without-bamboo"]["spec"], "batches": [not_finite]})
    found = drive(cases)
    for outcome in found:
        assert "start_error" not in outcome, outcome
    return dict(zip([*specs, "not_finite"], found, strict=True))


@pytest.fixture(scope="module")
def limited(outcomes: dict[str, Outcome]) -> Results:
    """The results of LIMITED, by name."""
    return dict(zip(LIMITED, outcomes["bert"]["results"], strict=False))


def test_a_pair_that_just_fits_is_not_truncated(limited: Results) -> None:
    assert limited["fits"]["truncated"] == []
    assert limited["fits"]["prompt_tokens"] == LIMIT


def test_a_pair_that_is_one_token_too_long_is_truncated_and_marked(limited: Results) -> None:
    result = limited["one too long"]
    assert result["truncated"] == [0]
    assert result["scores"][0] == pytest.approx(limited["fits"]["scores"][0], abs=TOLERANCE)
    assert limited["long"]["scores"][0] == pytest.approx(limited["fits"]["scores"][0], abs=TOLERANCE)


def test_a_query_too_long_for_the_model_is_truncated_and_its_documents_marked(limited: Results) -> None:
    assert limited["long query"]["truncated"] == [0]
    assert limited["long query"]["prompt_tokens"] == LIMIT


def test_max_tokens_per_doc_scores_like_a_shorter_document(limited: Results) -> None:
    assert limited["limited document"]["truncated"] == [0]
    assert limited["limited document"]["scores"] == pytest.approx(limited["five words"]["scores"], abs=TOLERANCE)


def test_max_tokens_per_query_scores_like_a_shorter_query(limited: Results) -> None:
    assert limited["limited query"]["scores"] == pytest.approx(limited["two-word query"]["scores"], abs=TOLERANCE)
    assert limited["limited query"]["prompt_tokens"] == limited["two-word query"]["prompt_tokens"]
    assert limited["limited query"]["truncated"] == []


def test_a_document_that_cannot_be_tokenized_fails_alone(limited: Results) -> None:
    result = limited["surrogate"]
    assert result["errors"] == {"1": NOT_TOKENIZABLE}
    assert result["scores"][1] is None
    first, second = limited["ordinary"]["scores"]
    assert [result["scores"][0], result["scores"][2]] == pytest.approx([first, second], abs=TOLERANCE)
    assert limited["surrogate in windows"]["errors"] == {"1": NOT_TOKENIZABLE}


def test_a_query_that_cannot_be_tokenized_fails_the_batch(limited: Results) -> None:
    assert limited["surrogate query"] == {"error": "the query cannot be tokenized for this model"}


def test_a_document_without_a_finite_score_fails_alone(
    tiny_models: dict[str, dict[str, Any]], outcomes: dict[str, Outcome]
) -> None:
    result = outcomes["not_finite"]["results"][0]
    assert result["errors"] == {"1": "the model gave no finite score for this document"}
    expected = tiny_models["bert"]["expected"]
    assert [result["scores"][0], result["scores"][2]] == pytest.approx(expected[:2], abs=TOLERANCE)


def test_windows_cover_a_long_document_and_a_short_one_has_none(limited: Results) -> None:
    result = limited["windowed"]
    assert result["truncated"] == []
    assert list(result["windows"]) == ["0"]
    assert result["scores"][1] == pytest.approx(limited["ordinary"]["scores"][0], abs=TOLERANCE)


def test_a_document_that_exceeds_max_chunks_per_doc_is_truncated(
    tiny_models: dict[str, dict[str, Any]], limited: Results
) -> None:
    result = limited["few windows"]
    assert result["truncated"] == [0]
    assert tuple(result["windows"]["0"]) in windows_of(tiny_models["bert"]["spec"], 40, 7, 2)
    assert result["prompt_tokens"] == 2 * (SPECIAL + QUERY_TOKENS + 40)


def test_an_overlap_as_long_as_a_window_is_rejected(limited: Results) -> None:
    expected = "overlap_tokens is 40, but must be less than the 40 tokens of a window"
    assert limited["overlap of a window"] == {"error": expected, "param": "overlap_tokens"}


def test_a_long_query_leaves_half_of_the_prompt_to_the_windows(limited: Results) -> None:
    result = limited["windows of a long query"]
    assert result["truncated"] == [0]
    assert result["prompt_tokens"] == 2 * LIMIT


@pytest.mark.parametrize(("kind", "size"), [("bert", 30), ("colbert", 50), ("qwen3-reranker", 50)])
def test_a_document_gets_the_score_of_its_best_window(
    kind: str, size: int, tiny_models: dict[str, dict[str, Any]], outcomes: dict[str, Outcome]
) -> None:
    windows = windows_of(tiny_models[kind]["spec"], size, 10, 100)
    skipped = len(LIMITED) if kind == "bert" else 0
    split, separate = outcomes[kind]["results"][skipped : skipped + 2]
    best = max(separate["scores"])
    assert len(set(separate["scores"])) > 5
    assert split["scores"][0] == pytest.approx(best, abs=TOLERANCE)
    assert tuple(split["windows"]["0"]) == windows[separate["scores"].index(best)]
    assert split["truncated"] == []


def test_a_long_prompt_is_shortened_in_the_document_and_not_at_its_end(
    tiny_models: dict[str, dict[str, Any]], outcomes: dict[str, Outcome]
) -> None:
    limit = tiny_models["qwen3-reranker"]["spec"]["engine_args"]["max_model_len"]
    result = outcomes["qwen3-reranker"]["results"][2]
    short = outcomes["qwen3-reranker"]["results"][0]["scores"][1]
    assert result["truncated"] == [0]
    assert limit < result["prompt_tokens"] <= 2 * limit
    # The long document does not change the prompt of the short one.
    assert result["scores"][1] == pytest.approx(short, abs=TOLERANCE)
    assert outcomes["qwen3-reranker"]["results"][3]["truncated"] == [0]


def test_a_list_too_long_for_one_prompt_truncates_only_its_longest_documents(
    outcomes: dict[str, Outcome],
) -> None:
    long, _, surrogate, many = outcomes["jina-reranker-v3"]["results"]
    assert long["truncated"] == [0]
    assert None not in long["scores"]
    assert long["prompt_tokens"] <= 1024
    assert many == {
        "error": "900 documents do not fit into one prompt of 1024 tokens, and this model reads all documents at once",
        "param": "documents",
    }
    assert surrogate["errors"] == {"0": NOT_TOKENIZABLE}


def test_a_list_ranks_its_readable_documents_without_the_others(outcomes: dict[str, Outcome]) -> None:
    _, plain, surrogate, _ = outcomes["jina-reranker-v3"]["results"]
    assert surrogate["scores"][1:] == pytest.approx(plain["scores"], abs=TOLERANCE)
