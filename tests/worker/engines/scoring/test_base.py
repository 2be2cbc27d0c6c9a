"""What becomes of a batch's prompts, and of what came back for them."""

import math

import pytest

from worker.engines.base import ScoringBatch
from worker.engines.scoring.base import NO_SCORE, PromptCollector, parts_of


def batch(**fields: int) -> ScoringBatch:
    return ScoringBatch(query="q", documents=["d"], **fields)  # type: ignore[arg-type]


def test_a_documents_score_is_the_best_of_its_windows_with_its_characters() -> None:
    gathering = PromptCollector(2)
    gathering.add(0, "first", 5, (0, 10))
    gathering.add(0, "second", 5, (8, 20))
    gathering.add(0, "third", 4, (18, 25))
    gathering.add(1, "whole", 3)
    scores = gathering.best([-2.0, -1.0, -1.5, 0.5])
    assert scores.scores == [-1.0, 0.5]
    assert scores.windows == {0: (8, 20)}
    assert scores.prompt_tokens == 17
    assert scores.errors == {}


def test_a_window_without_a_finite_score_is_outdone_by_any_other() -> None:
    gathering = PromptCollector(2)
    gathering.add(0, "first", 1, (0, 10))
    gathering.add(0, "second", 1, (8, 20))
    gathering.add(1, "whole", 1)
    scores = gathering.best([math.nan, -7.0, math.inf])
    assert scores.scores == [-7.0, None]
    assert scores.windows == {0: (8, 20)}
    assert scores.errors == {1: NO_SCORE}


def test_a_document_that_failed_before_keeps_its_own_reason() -> None:
    gathering = PromptCollector(2)
    gathering.fail(0, "strange")
    gathering.add(1, "whole", 1)
    scores = gathering.best([1.0])
    assert (scores.scores, scores.errors) == ([None, 1.0], {0: "strange"})


def test_a_document_that_fails_in_a_later_window_has_no_score_at_all() -> None:
    gathering = PromptCollector(1)
    gathering.truncated.add(0)
    gathering.add(0, "first", 1, (0, 10))
    gathering.fail(0, "strange")
    scores = gathering.best([1.0])
    assert (scores.scores, scores.errors, scores.windows, scores.truncated) == ([None], {0: "strange"}, {}, [])


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
def test_what_is_read_of_a_document_of_25_tokens_in_room_for_10(
    fields: dict[str, int], parts: list[tuple[int, int]]
) -> None:
    assert parts_of(25, 10, batch(**fields)) == parts
