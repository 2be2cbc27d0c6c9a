"""What is read of a text that is over a limit."""

from typing import Any

import pytest

from shared.contracts import Truncation
from worker.engines.base import LimitRefused, ScoringBatch, TextOverLimit
from worker.engines.truncation import check_length, keep, kept_range, prompt_limit

END, START, NONE = Truncation.END, Truncation.START, Truncation.NONE


def batch(**fields: Any) -> ScoringBatch:
    return ScoringBatch(query="q", documents=["d"], **fields)


@pytest.mark.parametrize(("truncation", "kept"), [(END, "ab"), (START, "de"), (NONE, "ab")])
def test_the_beginning_or_the_end_is_kept(truncation: Truncation, kept: str) -> None:
    assert keep("abcde", 2, truncation) == kept
    assert keep("abcde", 9, truncation) == "abcde"
    assert keep("abcde", 0, truncation) == ""


def test_a_text_within_its_limit_is_kept_completely() -> None:
    assert kept_range(5, 5, START) == kept_range(5, 5, END) == (0, 5)


def test_a_long_text_is_refused_only_without_truncation() -> None:
    for truncation in (END, START):
        check_length(batch(truncation=truncation), 0, 9, 5, "in the document")
    check_length(batch(truncation=NONE), 0, 5, 5, "in the document")
    check_length(batch(truncation=NONE), 0, 5, None, "in the document")
    with pytest.raises(TextOverLimit, match="3: 6 tokens in the document, but the limit is 5") as caught:
        check_length(batch(truncation=NONE), 3, 6, 5, "in the document")
    assert (caught.value.text, caught.value.tokens, caught.value.limit) == (3, 6, 5)


def test_the_callers_limit_of_a_prompt_replaces_the_models() -> None:
    assert prompt_limit(batch(), 512, 3) == 512
    assert prompt_limit(batch(max_prompt_tokens=512), 512, 3) == 512
    assert prompt_limit(batch(max_prompt_tokens=5), 512, 3) == 5


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        (513, "is 513, but the model reads at most 512 tokens"),
        (4, "is 4, but must be at least 5: 3 tokens of the prompt are neither query nor document"),
    ],
)
def test_a_limit_that_does_not_fit_the_model_is_refused(limit: int, message: str) -> None:
    with pytest.raises(LimitRefused) as caught:
        prompt_limit(batch(max_prompt_tokens=limit), 512, 3)
    assert str(caught.value) == f"truncate_prompt_tokens {message}"
    assert caught.value.param == "truncate_prompt_tokens"
