"""Divides texts into windows, and truncates them, counted in tokens. Pure arithmetic."""

from collections.abc import Sequence

from worker.engines.base import LimitRefused

_OVERLAP_SHARE = 8
"""By default a window shares an eighth with the previous one: about a sentence of a usual window."""

Offsets = Sequence[tuple[int, int]]


def token_windows(tokens: int, size: int, overlap: int, at_most: int) -> list[tuple[int, int]]:
    """Divide `tokens` tokens into windows, each (first token, last + 1).

    No window is longer than `size`, and each shares exactly `overlap` tokens (below `size`) with the previous one.
    There are at most `at_most` of them: when the last one ends before `tokens`, more would have been needed.
    """
    windows: list[tuple[int, int]] = []
    first = 0
    while True:
        end = min(first + size, tokens)
        windows.append((first, end))
        if end == tokens or len(windows) == at_most:
            return windows
        first += size - overlap


def window_overlap(requested: int | None, size: int) -> int:
    """How many tokens neighbouring windows share: the requested number or the default. Raises LimitRefused."""
    if requested is None:
        return size // _OVERLAP_SHARE
    if requested >= size:
        message = f"overlap_tokens is {requested}, but must be less than the {size} tokens of a window"
        raise LimitRefused(message, param="overlap_tokens")
    return requested


def character_range(offsets: Offsets, first: int, end: int) -> tuple[int, int]:
    """The characters of tokens `first` to `end` - 1, as (first character, last + 1).

    `offsets` has the characters of each token in the same form, not necessarily in order: a character may be several
    tokens, and normalization may reorder marks.
    """
    parts = offsets[first:end]
    return min(start for start, _ in parts), max(stop for _, stop in parts)


def longest_first(first: int, second: int, budget: int) -> tuple[int, int]:
    """How many tokens each of two texts keeps of `budget` in total: the longer one is truncated first."""
    if first + second <= budget:
        return first, second
    shorter = min(first, second, budget // 2)
    return (shorter, budget - shorter) if first <= second else (budget - shorter, shorter)


def fair_share(lengths: Sequence[int], budget: int) -> int:
    """The largest length such that texts truncated to it take at most `budget` tokens in total; 0 when impossible.

    No text is truncated when the result is the length of the longest one.
    """
    left = budget
    waiting = len(lengths)
    for length in sorted(lengths):
        if length * waiting > left:
            return max(left, 0) // waiting
        left -= length
        waiting -= 1
    return max(lengths, default=0)
