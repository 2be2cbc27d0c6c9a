"""Generated texts: exact length, and no text twice."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.words import LARGEST_NUMBER, QUERY_WORDS, VOCABULARY_SIZE, Words, vocabulary

VOCABULARY = [f"w{number}" for number in range(VOCABULARY_SIZE)]
WORDS = Words(VOCABULARY, seed=1)
numbers = st.integers(0, LARGEST_NUMBER)


@given(number=numbers, words=st.integers(4, 200))
def test_a_text_has_the_requested_number_of_words_of_the_vocabulary(number: int, words: int) -> None:
    parts = WORDS.text(number, words).decode().split(" ")
    assert len(parts) == words
    assert set(parts) <= set(VOCABULARY)


@given(one=numbers, other=numbers)
def test_different_numbers_give_different_texts(one: int, other: int) -> None:
    assert (WORDS.text(one, 4) == WORDS.text(other, 4)) == (one == other)


def test_requests_share_no_query_and_no_document() -> None:
    queries = {WORDS.query(serial) for serial in range(500)}
    documents = [text for serial in range(500) for text in WORDS.documents(serial, 20, 5)]
    assert len(queries) == 500
    assert len(set(documents)) == 500 * 20


def test_texts_depend_only_on_the_seed() -> None:
    assert Words(VOCABULARY, 1).text(7, 100) == WORDS.text(7, 100)
    assert Words(VOCABULARY, 2).text(7, 100) != WORDS.text(7, 100)


@pytest.mark.parametrize(("number", "words"), [(-1, 5), (LARGEST_NUMBER + 1, 5), (0, 3)])
def test_a_number_that_four_words_cannot_encode_is_rejected(number: int, words: int) -> None:
    with pytest.raises(ValueError, match="no text with"):
        WORDS.text(number, words)


def test_the_vocabulary_has_whole_words_of_the_model(tmp_path: Path) -> None:
    plain = [f"word{chr(97 + a)}{chr(97 + b)}{chr(97 + c)}" for a in range(14) for b in range(14) for c in range(14)]
    unfit = ["##ing", "[CLS]", "a", "1999", "über"]
    tokenizer = {"model": {"vocab": {word: number for number, word in enumerate(unfit + plain)}}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    drawn = vocabulary(tmp_path, seed=3)
    assert len(drawn) == len(set(drawn)) == VOCABULARY_SIZE
    assert set(drawn) <= set(plain)
    assert drawn != vocabulary(tmp_path, seed=4)


def test_a_model_with_too_few_words_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"only": 0}}}))
    with pytest.raises(ValueError, match="has 1 plain words"):
        vocabulary(tmp_path, seed=1)


def test_a_query_has_a_fixed_length() -> None:
    assert len(WORDS.query(12).split()) == QUERY_WORDS


def test_the_words_of_a_unigram_tokenizer_are_the_pieces_that_begin_a_word(tmp_path: Path) -> None:
    letters = "abcdefghijklm"
    words = [f"{a}{b}{c}" for a in letters for b in letters for c in letters]
    pieces = [["<s>", 0.0], ["inside", -5.0], ["\u2581", -5.0], *([f"\u2581{word}", -10.0] for word in words)]
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"type": "Unigram", "vocab": pieces}}))
    assert set(vocabulary(tmp_path, seed=1)) <= set(words)
