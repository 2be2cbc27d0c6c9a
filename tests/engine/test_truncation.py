"""What a caller decides about texts that are too long: which part of them is read, or that they are refused.

With real models of every kind. Every word of `WORDS` is one token.
"""

import re
from typing import Any

import pytest

from tests.engine.conftest import Drive, Outcome
from tests.engine.examples import TOLERANCE
from tests.engine.test_cuts import LIMIT, LONG, QUERY_TOKENS, SPECIAL, Results, batch, words

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]


def last_words(number: int) -> str:
    """The last words of the long document."""
    return " ".join(LONG.split()[-number:])


DOCUMENT_TOKENS = LIMIT - SPECIAL - QUERY_TOKENS
PAIRS: dict[str, dict[str, Any]] = {
    "fits": batch(words(DOCUMENT_TOKENS)),
    "long": batch(LONG),
    "windowed": batch(LONG, "bear", max_chunks_per_doc=100),
    "without its start": batch(LONG, truncation="start"),
    "last words": batch(last_words(DOCUMENT_TOKENS)),
    "short prompt": batch(LONG, max_prompt_tokens=20),
    "first 15 words": batch(words(20 - SPECIAL - QUERY_TOKENS)),
    "short prompt without its start": batch(LONG, max_prompt_tokens=20, truncation="start"),
    "last 15 words": batch(last_words(20 - SPECIAL - QUERY_TOKENS)),
    "prompt above the model's limit": batch("bear", max_prompt_tokens=LIMIT + 1),
    "last windows": batch(LONG, max_chunks_per_doc=2, max_tokens_per_doc=40, overlap_tokens=7, truncation="start"),
    "forbidden": batch("bear", words(DOCUMENT_TOKENS + 1), truncation="none"),
    "forbidden and fits": batch(words(DOCUMENT_TOKENS), truncation="none"),
    "forbidden for a query": batch("bear", query=LONG, truncation="none"),
    "forbidden with too few windows": batch(LONG, max_chunks_per_doc=2, truncation="none"),
    "forbidden with enough windows": batch(LONG, "bear", max_chunks_per_doc=100, truncation="none"),
}
OTHER_START = "bear " * 500 + LONG * 4
"""A text that has only its end in common with LONG * 4."""
CHOSEN: list[dict[str, Any]] = [
    *(batch(text, "bear", truncation=side) for side in ("start", "end") for text in (LONG * 4, OTHER_START)),
    batch("bear", LONG * 4, truncation="none"),
    batch(words(100), "bear", truncation="none"),
    batch(words(100), "bear"),
]
"""The callers' choices for the other kinds of models."""


@pytest.fixture(scope="module")
def outcomes(tiny_models: dict[str, dict[str, Any]], drive: Drive) -> dict[str, Outcome]:
    batches = {"bert": [*PAIRS.values()]} | dict.fromkeys(("colbert", "qwen3-reranker", "jina-reranker-v3"), CHOSEN)
    cases = [{"spec": tiny_models[kind]["spec"], "batches": batches[kind]} for kind in batches]
    return dict(zip(batches, drive(cases), strict=True))


@pytest.fixture(scope="module")
def pairs(outcomes: dict[str, Outcome]) -> Results:
    """The results of PAIRS, by name."""
    return dict(zip(PAIRS, outcomes["bert"]["results"], strict=True))


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("without its start", "last words"),
        ("short prompt", "first 15 words"),
        ("short prompt without its start", "last 15 words"),
    ],
)
def test_a_truncated_pair_scores_like_a_shorter_document(name: str, short: str, pairs: Results) -> None:
    truncated, whole = pairs[name], pairs[short]
    assert (truncated["truncated"], whole["truncated"]) == ([0], [])
    assert truncated["scores"] == pytest.approx(whole["scores"], abs=TOLERANCE)
    assert truncated["prompt_tokens"] == whole["prompt_tokens"]
    assert truncated["scores"] != pytest.approx(pairs["long"]["scores"], abs=TOLERANCE)


def test_the_windows_of_a_document_without_its_start_end_at_its_end(pairs: Results) -> None:
    result = pairs["last windows"]
    first_unread = len(LONG.split()) - (2 * 40 - 7)
    start, end = result["windows"]["0"]
    assert result["truncated"] == [0]
    assert len(LONG.split()) - len(LONG[start:].split()) in (first_unread, first_unread + 33)
    assert len(LONG[start:end].split()) == 40


def test_a_prompt_limit_above_the_models_is_refused(pairs: Results) -> None:
    expected = "truncate_prompt_tokens is 257, but the model reads at most 256 tokens"
    assert pairs["prompt above the model's limit"] == {"error": expected, "param": "truncate_prompt_tokens"}


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("forbidden", "1: 257 tokens with the query and special tokens, but the limit is 256"),
        ("forbidden for a query", "query: 603 tokens with special tokens, but the limit is 256"),
        (
            "forbidden with too few windows",
            "0: 600 tokens in the document, but the limit of 2 windows is 471",
        ),
    ],
)
def test_a_text_that_is_too_long_is_refused_when_truncation_is_forbidden(name: str, error: str, pairs: Results) -> None:
    assert pairs[name] == {"error": error}


@pytest.mark.parametrize(
    ("name", "allowed"), [("forbidden and fits", "fits"), ("forbidden with enough windows", "windowed")]
)
def test_a_text_that_is_read_completely_is_scored_as_usual_when_truncation_is_forbidden(
    name: str, allowed: str, pairs: Results
) -> None:
    assert pairs[name]["scores"] == pytest.approx(pairs[allowed]["scores"], abs=TOLERANCE)
    assert (pairs[name]["truncated"], pairs[name]["windows"]) == ([], pairs[allowed]["windows"])


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("colbert", r"1: 24\d\d tokens with special tokens, but the limit is \d+"),
        ("qwen3-reranker", r"1: \d{4} tokens with the query and special tokens, but the limit is \d+"),
        (
            "jina-reranker-v3",
            r"documents: \d{4} tokens together, with the query and special tokens, in .*, but the limit is \d+",
        ),
    ],
)
def test_every_kind_of_model_reads_the_part_that_the_caller_chooses(
    kind: str, error: str, outcomes: dict[str, Outcome]
) -> None:
    start, other_start, end, other_end, refused, fits, usual = outcomes[kind]["results"]
    assert [result["truncated"] for result in (start, other_start, end, other_end)] == [[0]] * 4
    assert start["scores"] == pytest.approx(other_start["scores"], abs=TOLERANCE)
    assert end["scores"] != pytest.approx(other_end["scores"], abs=TOLERANCE)
    assert re.fullmatch(error, refused["error"])
    assert (fits["truncated"], fits["prompt_tokens"]) == ([], usual["prompt_tokens"])
    assert fits["scores"] == pytest.approx(usual["scores"], abs=TOLERANCE)
