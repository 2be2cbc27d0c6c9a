import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.contracts import ScoreScale
from tests.shared.support import properties
from worker.engines.base import BatchScores, Cancellation, ScoringAborted, ScoringBatch
from worker.engines.lexical import LexicalEngine

words = st.lists(st.sampled_from(["panda", "bear", "Bär", "熊猫", "x1", "the", ","]), max_size=6).map(" ".join)


def score(query: str, *documents: str, max_tokens_per_doc: int | None = None) -> BatchScores:
    batch = ScoringBatch(query, list(documents), max_tokens_per_doc=max_tokens_per_doc)
    return LexicalEngine().score(batch, Cancellation())


def test_a_document_with_more_query_words_scores_higher() -> None:
    none, one, both = score("giant panda", "a bear", "a panda", "a giant panda").scores
    assert none == 0.0
    assert one is not None
    assert both is not None
    assert 0 < one < both < 1


def test_exactly_the_query_words_score_one_in_any_case_and_order() -> None:
    assert score("giant Panda", "PANDA, giant!").scores == [1.0]


def test_a_shorter_document_with_the_same_words_scores_slightly_higher() -> None:
    short, long = score("panda", "a panda", "a panda in a very long text").scores
    assert short is not None
    assert long is not None
    assert short > long


@pytest.mark.parametrize("query", ["", "?!"])
def test_a_query_without_words_scores_zero(query: str) -> None:
    assert score(query, "a panda", "").scores == [0.0, 0.0]


def test_a_long_document_is_truncated_and_marked() -> None:
    result = score("panda", "a panda", "one two panda", max_tokens_per_doc=2)
    assert result.truncated == [1]
    assert result.scores[1] == 0.0


def test_prompt_tokens_count_the_words_of_every_pair() -> None:
    assert score("giant panda", "a bear", "hi").prompt_tokens == (2 + 2) + (2 + 1)
    assert score("panda", "one two three", max_tokens_per_doc=2).prompt_tokens == 1 + 2


def test_a_batch_takes_the_delay() -> None:
    started = time.monotonic()
    LexicalEngine(delay_seconds=0.05).score(ScoringBatch("q", ["d"]), Cancellation())
    assert time.monotonic() - started >= 0.05


def test_cancellation_ends_the_delay() -> None:
    cancellation = Cancellation()
    threading.Timer(0.05, cancellation.cancel).start()
    started = time.monotonic()
    with pytest.raises(ScoringAborted):
        LexicalEngine(delay_seconds=30).score(ScoringBatch("q", ["d"]), cancellation)
    assert time.monotonic() - started < 5


def test_scores_are_similarities() -> None:
    assert LexicalEngine().scale is ScoreScale.SIMILARITY


def test_close_can_be_called_twice() -> None:
    engine = LexicalEngine()
    engine.close()
    engine.close()


@properties
@given(words, st.lists(words, max_size=5))
def test_scores_are_deterministic_and_from_0_to_1(query: str, documents: list[str]) -> None:
    result = score(query, *documents)
    assert len(result.scores) == len(documents)
    assert all(value is not None and 0 <= value <= 1 for value in result.scores)
    assert score(query, *documents) == result
    assert (result.truncated, result.errors) == ([], {})
