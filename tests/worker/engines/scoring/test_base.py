"""Collecting prompts, merging their scores, and splitting documents."""

import math

import pytest

from worker.engines.base import ScoringBatch
from worker.engines.scoring.base import NO_SCORE, PromptCollector, split_document


def batch(**fields: int) -> ScoringBatch:
    return ScoringBatch(query="q", documents=["d"], **fields)  # type: ignore[arg-type]


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
    assert split_document(25, 10, batch(**fields)) == parts
