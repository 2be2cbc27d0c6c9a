"""Collecting prompts, merging their scores, and splitting documents."""

import math
from typing import Any

import pytest

from shared.contracts import Truncation
from worker.engines.base import ScoringBatch, TextOverLimit
from worker.engines.scoring.base import NO_SCORE, PromptCollector, is_cut, read_query, split_document


def batch(**fields: Any) -> ScoringBatch:
    return ScoringBatch(query="q", documents=["d"], **fields)


def test_a_document_gets_the_score_and_characters_of_its_best_window() -> None:
    collector = PromptCollector(2)
    collector.add(0, "first", 5, (0, 10))
    collector.add(0, "second", 5, (8, 20))
    collector.add(0, "third", 4, (18, 25))
    collector.add(1, "whole", 3)
    scores = collector.best([-2.0, -1.0, -1.5, 0.5])
    assert scores.scores == [-1.0, 0.5]
    assert scores.windows == {0: (8, 20)}
    assert scores.prompt_tokens == 17
    assert scores.errors == {}


def test_a_window_without_a_finite_score_is_ignored() -> None:
    collector = PromptCollector(2)
    collector.add(0, "first", 1, (0, 10))
    collector.add(0, "second", 1, (8, 20))
    collector.add(1, "whole", 1)
    scores = collector.best([math.nan, -7.0, math.inf])
    assert scores.scores == [-7.0, None]
    assert scores.windows == {0: (8, 20)}
    assert scores.errors == {1: NO_SCORE}


def test_a_failed_document_keeps_its_error() -> None:
    collector = PromptCollector(2)
    collector.fail(0, "not tokenizable")
    collector.add(1, "whole", 1)
    scores = collector.best([1.0])
    assert (scores.scores, scores.errors) == ([None, 1.0], {0: "not tokenizable"})


def test_a_document_that_fails_in_a_later_window_has_no_score() -> None:
    collector = PromptCollector(1)
    collector.truncated.add(0)
    collector.add(0, "first", 1, (0, 10))
    collector.fail(0, "not tokenizable")
    scores = collector.best([1.0])
    assert (scores.scores, scores.errors, scores.windows, scores.truncated) == ([None], {0: "not tokenizable"}, {}, [])


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({}, [(0, 10)]),
        ({"max_tokens_per_doc": 4}, [(0, 4)]),
        ({"max_chunks_per_doc": 9}, [(0, 10), (9, 19), (18, 25)]),
        ({"max_chunks_per_doc": 2}, [(0, 10), (9, 19)]),
        ({"max_chunks_per_doc": 9, "max_tokens_per_doc": 9, "overlap_tokens": 0}, [(0, 9), (9, 18), (18, 25)]),
    ],
)
def test_a_document_of_25_tokens_is_split_for_a_limit_of_10(
    fields: dict[str, int], parts: list[tuple[int, int]]
) -> None:
    assert split_document(batch(**fields), 0, 25, 10) == parts
    assert not is_cut(parts, parts[-1][1])
    assert is_cut(parts, 25) is (parts[-1][1] < 25)


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({}, [(15, 25)]),
        ({"max_tokens_per_doc": 4}, [(21, 25)]),
        ({"max_chunks_per_doc": 9}, [(0, 10), (9, 19), (18, 25)]),
        ({"max_chunks_per_doc": 2}, [(6, 16), (15, 25)]),
    ],
)
def test_without_its_beginning_a_document_is_read_up_to_its_end(
    fields: dict[str, int], parts: list[tuple[int, int]]
) -> None:
    assert split_document(batch(truncation=Truncation.START, **fields), 0, 25, 10) == parts
    assert is_cut(parts, 25) is (parts[0][0] > 0)


@pytest.mark.parametrize(
    ("fields", "tokens", "limit"),
    [
        ({}, 27, 12),
        ({"max_tokens_per_doc": 4}, 25, 4),
        ({"max_chunks_per_doc": 2}, 25, 19),
    ],
)
def test_a_document_that_would_be_cut_is_refused_without_truncation(
    fields: dict[str, int], tokens: int, limit: int
) -> None:
    with pytest.raises(TextOverLimit) as caught:
        split_document(batch(truncation=Truncation.NONE, **fields), 7, 25, 10, other_tokens=2)
    assert (caught.value.text, caught.value.tokens, caught.value.limit) == (7, tokens, limit)


@pytest.mark.parametrize("fields", [{"max_tokens_per_doc": 25}, {"max_chunks_per_doc": 3}])
def test_a_document_that_is_read_completely_is_accepted_without_truncation(fields: dict[str, int]) -> None:
    room = 10 if "max_chunks_per_doc" in fields else 25
    parts = split_document(batch(truncation=Truncation.NONE, **fields), 0, 25, room)
    assert (parts[0][0], parts[-1][1]) == (0, 25)


@pytest.mark.parametrize(
    ("truncation", "read"), [(Truncation.END, [1, 2]), (Truncation.START, [2, 3]), (Truncation.NONE, None)]
)
def test_the_query_is_read_up_to_the_callers_limit(truncation: Truncation, read: list[int] | None) -> None:
    limited = batch(truncation=truncation, max_tokens_per_query=2)
    assert read_query(limited, [7, 8]) == [7, 8]
    if read is not None:
        assert read_query(limited, [1, 2, 3]) == read
        return
    with pytest.raises(TextOverLimit, match=r"query: 3 tokens in the query, but max_tokens_per_query is 2"):
        read_query(limited, [1, 2, 3])
