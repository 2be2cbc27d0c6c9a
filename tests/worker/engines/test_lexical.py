import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.contracts import ScoreScale, Truncation
from tests.shared.support import properties
from worker.engines.base import BatchScores, Cancellation, ScoringAborted, ScoringBatch, TextOverLimit
from worker.engines.lexical import LexicalEngine

words = st.lists(st.sampled_from(["panda", "bear", "Bär", "熊猫", "x1", "the", ","]), max_size=6).map(" ".join)


def score(query: str, *documents: str, **limits: Any) -> BatchScores:
    return LexicalEngine().score(ScoringBatch(query, list(documents), **limits), Cancellation())


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


@pytest.mark.parametrize("limit", [{"max_tokens_per_doc": 2}, {"max_prompt_tokens": 3}])
def test_the_beginning_or_the_end_of_a_long_document_is_read(limit: dict[str, int]) -> None:
    document = "panda one two bear"
    end, start = (score("panda", document, truncation=side, **limit) for side in (Truncation.END, Truncation.START))
    assert (end.truncated, start.truncated) == ([0], [0])
    assert end.scores[0]
    assert (start.scores, score("bear", document, truncation=Truncation.START, **limit).scores) == ([0.0], [0.95])


@pytest.mark.parametrize(
    ("limit", "text", "tokens"),
    [({"max_tokens_per_doc": 2}, 1, 4), ({"max_prompt_tokens": 5}, 1, 6), ({"max_tokens_per_query": 1}, "query", 2)],
)
def test_a_text_that_is_too_long_is_refused_before_the_delay_without_truncation(
    limit: dict[str, Any], text: int | str, tokens: int
) -> None:
    batch = ScoringBatch("giant panda", ["a panda", "one two three panda"], truncation=Truncation.NONE, **limit)
    started = time.monotonic()
    with pytest.raises(TextOverLimit) as caught:
        LexicalEngine(delay_seconds=30).score(batch, Cancellation())
    assert time.monotonic() - started < 5
    assert (caught.value.text, caught.value.tokens) == (text, tokens)


def test_max_tokens_per_query_shortens_the_query() -> None:
    assert score("giant panda", "a panda", max_tokens_per_query=1).scores == [0.0]


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
