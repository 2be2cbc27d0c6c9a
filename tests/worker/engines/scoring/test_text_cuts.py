"""A long text is tokenized in part, and the tokens are those of the whole text: for every kind of tokenizer."""

import os
from functools import cache
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.worker.engines.scoring.small_tokenizers import CUTTABLE, TEXTS, WHOLE, tokenizer
from worker.engines.scoring import tokens as tokens_module
from worker.engines.scoring.tokens import TextTokens

WORDS = sorted({word for text in TEXTS for word in text.split()})
SEPARATORS = [
    "",
    "",
    " ",
    " ",
    " ",
    "  ",
    "\n",
    "\n\n",
    "\t ",
    " \u0301",
    "\u00a0",
    "\u3000",
    "。",
    "，",
    ", ",
    ".",
    "-",
    "'",
]
ENDLESS = [
    "a" * 900,
    "漢" * 900,
    "ก็" * 400,
    "12" * 400,
    "aGVsbG8" * 150,
    "ab-" * 300,
    "\u0301" * 300,
    "Σ" * 300,
    "🐼" * 200,
]

words = st.sampled_from(WORDS) | st.sampled_from(ENDLESS) | st.text(max_size=6)
texts = st.lists(st.tuples(words, st.sampled_from(SEPARATORS)), max_size=60).map(
    lambda parts: "".join(word + separator for word, separator in parts)
)


@cache
def tokens(kind: str, *, lower_case: bool = False, allow_special_tokens: bool = False) -> TextTokens:
    return TextTokens(
        SimpleNamespace(_tokenizer=tokenizer(kind)),
        vocabulary=100_000,
        lower_case=lower_case,
        allow_special_tokens=allow_special_tokens,
    )


@pytest.fixture(autouse=True)
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut short texts, too: Hypothesis tries many of them."""
    monkeypatch.setattr(tokens_module, "_SMALLEST_PART", 1)
    monkeypatch.setattr(tokens_module, "_CHARACTERS_PER_TOKEN", 2)


every_kind = pytest.mark.parametrize("kind", [*CUTTABLE, *WHOLE])
thorough = settings(
    max_examples=int(os.environ.get("CUT_EXAMPLES", "80")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
variants = st.sampled_from([{}, {"lower_case": True}, {"allow_special_tokens": True}])
at_most = st.integers(min_value=1, max_value=40)


@every_kind
@thorough
@given(variant=variants, text=texts, at_most=at_most)
def test_the_first_ids_are_those_of_the_whole_text(
    kind: str, variant: dict[str, bool], text: str, at_most: int
) -> None:
    reader = tokens(kind, **variant)
    (whole,), (part,) = reader.ids([text]), reader.ids([text], at_most)
    assert whole is not None
    assert part is not None
    assert part == whole[: len(part)]
    assert (len(part) > at_most) == (len(whole) > at_most), "whether there are more must stay exact"
    offsets = reader.offsets(text, at_most)
    assert offsets == reader.offsets(text)[: len(offsets)]
    assert len(offsets) >= min(at_most, len(whole))


@every_kind
@thorough
@given(variant=variants, text=texts, at_most=at_most)
def test_the_last_ids_are_those_of_the_whole_text(kind: str, variant: dict[str, bool], text: str, at_most: int) -> None:
    reader = tokens(kind, **variant)
    (whole,), (part,) = reader.ids([text]), reader.ids([text], at_most, keep_end=True)
    assert whole is not None
    assert part is not None
    assert part == whole[len(whole) - len(part) :]
    assert (len(part) > at_most) == (len(whole) > at_most)
    offsets = reader.offsets(text, at_most, keep_end=True)
    every = reader.offsets(text)
    assert offsets == every[len(every) - len(offsets) :]
    assert len(offsets) >= min(at_most, len(whole))


@pytest.mark.parametrize("kind", CUTTABLE)
@pytest.mark.parametrize("keep_end", [False, True])
def test_a_long_text_costs_what_is_read_of_it(kind: str, keep_end: bool) -> None:
    (ids,) = tokens(kind).ids([TEXTS[0] * 200], 50, keep_end=keep_end)
    assert ids is not None
    assert 50 < len(ids) < 1000


@pytest.mark.parametrize("kind", ["BERT", "Qwen", "XLM-RoBERTa", "DeBERTa"])
def test_a_text_without_spaces_is_cut_at_its_punctuation(kind: str) -> None:
    (ids,) = tokens(kind).ids([TEXTS[3] * 200], 50)
    assert ids is not None
    assert 50 < len(ids) < 1000


def test_an_unknown_pre_tokenizer_reads_the_whole_text() -> None:
    reader = tokens("an unknown expression")
    assert reader.ids([TEXTS[0] * 50], 10) == reader.ids([TEXTS[0] * 50])
