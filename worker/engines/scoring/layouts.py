"""Learns the special tokens before, between and after the texts of a prompt from sample prompts that vLLM renders.

vLLM's processors define how a model reads its texts. With the learned layout later prompts are assembled from tokens in
a microsecond, without tokenizing texts twice. Does not guess: if the samples of a model disagree it has no layout, and
vLLM renders every prompt.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

PromptTokens = tuple[list[int], int | None]
"""A prompt's token ids, and the position of its first token of type 1 (None: the model has no token types)."""

_SAMPLES = (
    ("What is a panda?", "The panda is a bear from China."),
    ("bear", "Sort by size: small, medium, 2 large ones!"),
    ("how many pandas live in the wild", "1,864 of them"),
)


class _Types(Enum):
    """Where the tokens of type 1 begin: nowhere (no token types), at the second text, or at the end."""

    NONE = "none"
    SECOND = "second"
    END = "end"


@dataclass(frozen=True, slots=True)
class Layout:
    """The special tokens around one text (`between` is empty) or around a pair."""

    before: list[int]
    between: list[int]
    after: list[int]
    types: _Types = _Types.NONE

    @property
    def special_tokens(self) -> int:
        return len(self.before) + len(self.between) + len(self.after)

    def single(self, text: Sequence[int]) -> list[int]:
        return [*self.before, *text, *self.after]

    def pair(self, first: Sequence[int], second: Sequence[int]) -> PromptTokens:
        ids = [*self.before, *first, *self.between, *second, *self.after]
        match self.types:
            case _Types.NONE:
                return ids, None
            case _Types.SECOND:
                return ids, len(self.before) + len(first) + len(self.between)
            case _Types.END:
                return ids, len(ids)


def learn_pair(build: Callable[[str, str], PromptTokens], ids_of: Callable[[str], list[int]]) -> Layout | None:
    """The layout of pairs. `build` renders vLLM's prompt; `ids_of` returns the tokens of a bare text."""
    samples = [(ids_of(first), ids_of(second), build(first, second)) for first, second in _SAMPLES]
    first, second, (ids, _) = samples[0]
    if (head := _split(ids, first)) is None or (tail := _split(head[1], second)) is None:
        return None
    for types in _Types:
        layout = Layout(before=head[0], between=tail[0], after=tail[1], types=types)
        if all(layout.pair(first, second) == built for first, second, built in samples):
            return layout
    return None


def learn_single(build: Callable[[str], list[int]], ids_of: Callable[[str], list[int]]) -> Layout | None:
    """The layout of a single text."""
    samples = [(ids_of(text), build(text)) for pair in _SAMPLES for text in pair]
    text, ids = samples[0]
    if (parts := _split(ids, text)) is None:
        return None
    layout = Layout(before=parts[0], between=[], after=parts[1])
    return layout if all(layout.single(text) == ids for text, ids in samples) else None


def _split(ids: list[int], part: list[int]) -> tuple[list[int], list[int]] | None:
    """The tokens before and after `part` in `ids`."""
    for start in range(len(ids) - len(part) + 1):
        if ids[start : start + len(part)] == part:
            return ids[:start], ids[start + len(part) :]
    return None
