"""Windows, character ranges and truncation, in tokens."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.shared.support import properties
from worker.engines.base import EngineError
from worker.engines.scoring.windows import character_range, fair_share, longest_first, token_windows, window_overlap

lengths = st.integers(min_value=0, max_value=300)


@st.composite
def window_arguments(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """The number of tokens, the size and overlap of windows, and the maximum number of windows."""
    size = draw(st.integers(min_value=1, max_value=50))
    overlap = draw(st.integers(min_value=0, max_value=size - 1))
    return draw(lengths), size, overlap, draw(st.integers(min_value=1, max_value=20))


def test_a_text_that_fits_is_one_window() -> None:
    assert token_windows(5, 5, 2, 10) == [(0, 5)]
    assert token_windows(0, 5, 2, 10) == [(0, 0)]


def test_each_window_overlaps_the_previous_one() -> None:
    assert token_windows(10, 4, 1, 10) == [(0, 4), (3, 7), (6, 10)]


def test_the_last_window_can_be_shorter() -> None:
    assert token_windows(9, 4, 0, 10) == [(0, 4), (4, 8), (8, 9)]


def test_the_maximum_number_of_windows_can_end_before_the_text() -> None:
    assert token_windows(100, 10, 0, 2) == [(0, 10), (10, 20)]


@properties
@given(window_arguments())
def test_windows_keep_their_size_and_overlap(arguments: tuple[int, int, int, int]) -> None:
    tokens, size, overlap, at_most = arguments
    windows = token_windows(tokens, size, overlap, at_most)
    assert 1 <= len(windows) <= at_most
    assert all(0 <= end - first <= size for first, end in windows)
    for (_, end), (following, _) in itertools.pairwise(windows):
        assert end - following == overlap


@properties
@given(window_arguments())
def test_windows_cover_the_text_unless_the_maximum_is_reached(arguments: tuple[int, int, int, int]) -> None:
    tokens, size, overlap, at_most = arguments
    windows = token_windows(tokens, size, overlap, at_most)
    covered = {token for first, end in windows for token in range(first, end)}
    assert covered == set(range(windows[-1][1]))
    assert windows[-1][1] == tokens or len(windows) == at_most


@properties
@given(window_arguments())
def test_no_window_is_superfluous(arguments: tuple[int, int, int, int]) -> None:
    windows = token_windows(*arguments)
    assert all(end < arguments[0] for _, end in windows[:-1])


def test_the_default_overlap_is_an_eighth_of_the_window() -> None:
    assert window_overlap(None, 80) == 10
    assert window_overlap(0, 80) == 0
    assert window_overlap(79, 80) == 79


@pytest.mark.parametrize("overlap", [80, 81])
def test_an_overlap_as_long_as_the_window_is_rejected(overlap: int) -> None:
    with pytest.raises(EngineError, match=f"overlap_tokens is {overlap}, but must be less than the 80 tokens"):
        window_overlap(overlap, 80)


def test_a_character_range_spans_all_its_tokens() -> None:
    offsets = [(0, 3), (4, 7), (7, 9)]
    assert character_range(offsets, 0, 3) == (0, 9)
    assert character_range(offsets, 1, 2) == (4, 7)


def test_tokens_can_share_characters_in_any_order() -> None:
    # The four byte tokens of an emoji, and marks that normalization reordered.
    assert character_range([(0, 1), (0, 1), (0, 1), (0, 1)], 1, 3) == (0, 1)
    assert character_range([(1, 2), (0, 1)], 0, 2) == (0, 2)


@properties
@given(st.text(min_size=1, max_size=200), st.integers(min_value=1, max_value=20), st.data())
def test_the_windows_of_a_text_cover_every_character(text: str, size: int, data: st.DataObject) -> None:
    tokenizer = Tokenizer(models.BPE(vocab={}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer.model = models.BPE(vocab=alphabet, merges=[])
    offsets = tokenizer.encode(text).offsets
    overlap = data.draw(st.integers(min_value=0, max_value=size - 1))
    spans = [character_range(offsets, *window) for window in token_windows(len(offsets), size, overlap, 10_000)]
    covered = {letter for first, last in spans for letter in range(first, last)}
    assert covered == set(range(len(text)))


def test_texts_that_fit_are_not_truncated() -> None:
    assert longest_first(4, 6, 10) == (4, 6)


def test_the_longer_text_is_truncated_first() -> None:
    assert longest_first(4, 20, 10) == (4, 6)
    assert longest_first(20, 4, 10) == (6, 4)


def test_two_long_texts_are_truncated_to_the_same_length() -> None:
    assert longest_first(30, 20, 10) == (5, 5)
    assert sorted(longest_first(30, 20, 11)) == [5, 6]


@properties
@given(lengths, lengths, lengths)
def test_truncated_texts_use_the_whole_budget_and_none_grows(first: int, second: int, budget: int) -> None:
    kept = longest_first(first, second, budget)
    assert kept[0] <= first
    assert kept[1] <= second
    assert sum(kept) == min(first + second, budget)


def test_a_fair_share_truncates_only_the_longest_texts() -> None:
    assert fair_share([2, 3, 90], 15) == 10
    assert fair_share([2, 3, 4], 15) == 4
    assert fair_share([9, 9, 9], 10) == 3
    assert fair_share([5, 5], 1) == 0
    assert fair_share([], 10) == 0
    assert fair_share([5], -3) == 0


@properties
@given(st.lists(lengths, min_size=1, max_size=20), lengths)
def test_a_fair_share_is_the_largest_that_fits(texts: list[int], budget: int) -> None:
    share = fair_share(texts, budget)
    assert sum(min(length, share) for length in texts) <= budget
    assert share == max(texts) or sum(min(length, share + 1) for length in texts) > budget
