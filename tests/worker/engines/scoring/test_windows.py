"""Where texts are cut, in tokens."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.shared.support import properties
from worker.engines.base import EngineError
from worker.engines.scoring.windows import characters, fair_share, longest_first, token_windows, window_overlap

lengths = st.integers(min_value=0, max_value=300)


@st.composite
def cuts(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """Tokens, the size of a window, its overlap, and how many windows there may be."""
    size = draw(st.integers(min_value=1, max_value=50))
    overlap = draw(st.integers(min_value=0, max_value=size - 1))
    return draw(lengths), size, overlap, draw(st.integers(min_value=1, max_value=20))


def test_a_text_that_fits_is_one_window() -> None:
    assert token_windows(5, 5, 2, 10) == [(0, 5)]
    assert token_windows(0, 5, 2, 10) == [(0, 0)]


def test_each_window_shares_its_beginning_with_the_one_before() -> None:
    assert token_windows(10, 4, 1, 10) == [(0, 4), (3, 7), (6, 10)]


def test_the_last_window_is_shorter_when_less_is_left() -> None:
    assert token_windows(9, 4, 0, 10) == [(0, 4), (4, 8), (8, 9)]


def test_windows_end_before_the_text_when_more_would_be_needed() -> None:
    assert token_windows(100, 10, 0, 2) == [(0, 10), (10, 20)]


@properties
@given(cuts())
def test_no_window_is_over_its_size_and_neighbours_share_the_overlap_exactly(cut: tuple[int, int, int, int]) -> None:
    tokens, size, overlap, at_most = cut
    windows = token_windows(tokens, size, overlap, at_most)
    assert 1 <= len(windows) <= at_most
    assert all(0 <= end - first <= size for first, end in windows)
    for (_, end), (following, _) in itertools.pairwise(windows):
        assert end - following == overlap


@properties
@given(cuts())
def test_windows_cover_the_text_or_are_as_many_as_there_may_be(cut: tuple[int, int, int, int]) -> None:
    tokens, size, overlap, at_most = cut
    windows = token_windows(tokens, size, overlap, at_most)
    covered = {token for first, end in windows for token in range(first, end)}
    assert covered == set(range(windows[-1][1]))
    assert windows[-1][1] == tokens or len(windows) == at_most


@properties
@given(cuts())
def test_there_is_no_window_more_than_needed(cut: tuple[int, int, int, int]) -> None:
    windows = token_windows(*cut)
    assert all(end < cut[0] for _, end in windows[:-1])


def test_an_overlap_is_an_eighth_of_the_window_unless_told_otherwise() -> None:
    assert window_overlap(None, 80) == 10
    assert window_overlap(0, 80) == 0
    assert window_overlap(79, 80) == 79


@pytest.mark.parametrize("asked", [80, 81])
def test_an_overlap_as_long_as_the_window_is_an_error_that_names_its_field(asked: int) -> None:
    with pytest.raises(EngineError, match=f"overlap_tokens is {asked}, but must be less than the 80 tokens"):
        window_overlap(asked, 80)


def test_characters_of_tokens_reach_from_the_first_to_the_last() -> None:
    offsets = [(0, 3), (4, 7), (7, 9)]
    assert characters(offsets, 0, 3) == (0, 9)
    assert characters(offsets, 1, 2) == (4, 7)


def test_tokens_that_share_a_character_all_name_it() -> None:
    # An emoji of four bytes, a token each, and marks that normalizing turned around.
    assert characters([(0, 1), (0, 1), (0, 1), (0, 1)], 1, 3) == (0, 1)
    assert characters([(1, 2), (0, 1)], 0, 2) == (0, 2)


@properties
@given(st.text(min_size=1, max_size=200), st.integers(min_value=1, max_value=20), st.data())
def test_windows_of_any_text_cover_each_of_its_letters(text: str, size: int, data: st.DataObject) -> None:
    tokenizer = Tokenizer(models.BPE(vocab={}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer.model = models.BPE(vocab=alphabet, merges=[])
    offsets = tokenizer.encode(text).offsets
    overlap = data.draw(st.integers(min_value=0, max_value=size - 1))
    spans = [characters(offsets, *window) for window in token_windows(len(offsets), size, overlap, 10_000)]
    covered = {letter for first, last in spans for letter in range(first, last)}
    assert covered == set(range(len(text)))


def test_texts_that_fit_together_keep_all() -> None:
    assert longest_first(4, 6, 10) == (4, 6)


def test_the_longer_text_gives_way_first() -> None:
    assert longest_first(4, 20, 10) == (4, 6)
    assert longest_first(20, 4, 10) == (6, 4)


def test_two_long_texts_end_up_of_the_same_length() -> None:
    assert longest_first(30, 20, 10) == (5, 5)
    assert sorted(longest_first(30, 20, 11)) == [5, 6]


@properties
@given(lengths, lengths, lengths)
def test_cut_texts_fill_the_room_and_none_grows(first: int, second: int, room: int) -> None:
    kept = longest_first(first, second, room)
    assert kept[0] <= first
    assert kept[1] <= second
    assert sum(kept) == min(first + second, room)


def test_a_fair_share_cuts_only_the_longest() -> None:
    assert fair_share([2, 3, 90], 15) == 10
    assert fair_share([2, 3, 4], 15) == 4
    assert fair_share([9, 9, 9], 10) == 3
    assert fair_share([5, 5], 1) == 0
    assert fair_share([], 10) == 0
    assert fair_share([5], -3) == 0


@properties
@given(st.lists(lengths, min_size=1, max_size=20), lengths)
def test_texts_cut_to_a_fair_share_fit_and_a_longer_share_would_not(texts: list[int], room: int) -> None:
    share = fair_share(texts, room)
    assert sum(min(length, share) for length in texts) <= room
    assert share == max(texts) or sum(min(length, share + 1) for length in texts) > room
