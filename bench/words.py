"""Texts to score, of exact length and never twice the same: nothing that remembers can be faster for it.

Owns what a query and a document look like. Every text begins with four words that spell its number, so that two
numbers can never give the same text; the rest is a window into one long row of drawn words, which costs next to
nothing to cut. Refuses numbers that four words cannot spell.
"""

import json
import random
from pathlib import Path

VOCABULARY_SIZE = 2048
NUMBER_WORDS = 4
QUERY_WORDS = 10
LARGEST_NUMBER = VOCABULARY_SIZE**NUMBER_WORDS - 1
DOCUMENTS_PER_SERIAL = 1024
"""So many documents, at most, belong to one request; their numbers follow from its own."""
_WORD_BITS = 11
_ROW_WORDS = 20_000
# An odd factor maps the numbers below 2**44 onto themselves, one to one, and neighbours far from each other.
_SCATTER = 0x9E3779B97F5


def vocabulary(model: Path, seed: int) -> list[str]:
    """2,048 words drawn from a model's own vocabulary, each one token. Raises ValueError for too small a one."""
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    words = sorted(word for word in tokenizer["model"]["vocab"] if len(word) > 2 and word.isascii() and word.isalpha())
    if len(words) < VOCABULARY_SIZE:
        raise ValueError(f"{model}: the vocabulary has {len(words)} plain words, {VOCABULARY_SIZE} are needed")
    return random.Random(seed).sample(words, VOCABULARY_SIZE)


class Words:
    """Texts by number, as bytes that stand in JSON as they are."""

    def __init__(self, vocabulary: list[str], seed: int) -> None:
        self._vocabulary = [word.encode() for word in vocabulary]
        drawn = random.Random(seed).choices(self._vocabulary, k=_ROW_WORDS)
        self._row = b" ".join(drawn)
        self._starts = [0]
        for word in drawn:
            self._starts.append(self._starts[-1] + len(word) + 1)

    def text(self, number: int, words: int) -> bytes:
        """The text of that number, of so many words (at least four). Raises ValueError."""
        if not 0 <= number <= LARGEST_NUMBER or words < NUMBER_WORDS:
            raise ValueError(f"no text of {words} words has the number {number}")
        code = (number * _SCATTER) & LARGEST_NUMBER
        spelled = [self._vocabulary[code >> shift & VOCABULARY_SIZE - 1] for shift in range(0, 44, _WORD_BITS)]
        if rest := words - NUMBER_WORDS:
            first = code % (_ROW_WORDS - rest)
            spelled.append(self._row[self._starts[first] : self._starts[first + rest] - 1])
        return b" ".join(spelled)

    def query(self, serial: int) -> bytes:
        """The query of the request with that serial number."""
        return self.text(serial, QUERY_WORDS)

    def documents(self, serial: int, count: int, words: int) -> list[bytes]:
        """The documents of the request with that serial number; up to 1,024."""
        first = serial * DOCUMENTS_PER_SERIAL
        return [self.text(number, words) for number in range(first, first + count)]
