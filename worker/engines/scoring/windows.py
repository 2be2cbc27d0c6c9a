"""Where a text is cut, told in tokens. Pure arithmetic: knows neither texts, tokenizers nor models."""

from collections.abc import Sequence

from worker.engines.base import EngineError

_OVERLAP_SHARE = 8
"""A window shares an eighth with the one before, unless told otherwise: about a sentence of a usual window."""

Offsets = Sequence[tuple[int, int]]


def token_windows(tokens: int, size: int, overlap: int, at_most: int) -> list[tuple[int, int]]:
    """Cut `tokens` tokens into windows, each (first token, last + 1).

    No window is longer than `size`, and each shares exactly `overlap` tokens (below `size`) with the one before.
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


def window_overlap(asked: int | None, size: int) -> int:
    """How many tokens neighbours share, the caller's wish or the default. Raises EngineError naming the field."""
    if asked is None:
        return size // _OVERLAP_SHARE
    if asked >= size:
        raise EngineError(f"overlap_tokens is {asked}, but must be less than the {size} tokens of a window")
    return asked


def characters(offsets: Offsets, first: int, end: int) -> tuple[int, int]:
    """The characters of tokens `first` to `end` - 1, as (first character, last + 1).

    `offsets` has a token's characters in the same form. They need not be in order: one character may be several
    tokens, and normalizing may turn marks around.
    """
    parts = offsets[first:end]
    return min(start for start, _ in parts), max(stop for _, stop in parts)


def longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens each of two texts keeps, when together they get `room`: the longer one gives way first."""
    if first + second <= room:
        return first, second
    shorter = min(first, second, room // 2)
    return (shorter, room - shorter) if first <= second else (room - shorter, shorter)


def fair_share(lengths: Sequence[int], room: int) -> int:
    """The longest length at which texts, cut to it, take no more than `room` together; 0 when there is none.

    No text needs to be cut when it answers the longest one's length.
    """
    left = room
    waiting = len(lengths)
    for length in sorted(lengths):
        if length * waiting > left:
            return max(left, 0) // waiting
        left -= length
        waiting -= 1
    return max(lengths, default=0)
