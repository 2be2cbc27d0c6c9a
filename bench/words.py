"""Generates distinct queries and documents with an exact number of words, so that no cache can hold them.

Each text begins with four words that encode its number, so that different numbers give different texts. The rest is a
slice of one long sequence of random words, which is cheap to cut. Numbers must fit into four words.
"""

import json
import random
from pathlib import Path

VOCABULARY_SIZE = 2048
NUMBER_WORDS = 4
QUERY_WORDS = 10
LARGEST_NUMBER = VOCABULARY_SIZE**NUMBER_WORDS - 1
DOCUMENTS_PER_SERIAL = 1024
"""The largest number of documents per request. Their numbers follow from that of the request."""
_WORD_MARK = "▁"
_WORD_BITS = 11
_ROW_WORDS = 20_000
# Multiplying by an odd factor modulo 2**44 is one-to-one, and spreads neighbouring numbers far apart.
_SCATTER = 0x9E3779B97F5


def vocabulary(model: Path, seed: int) -> list[str]:
    """Draw 2,048 words from a model's vocabulary, each one token long. Raises ValueError when it has too few."""
    entries = json.loads((model / "tokenizer.json").read_text())["model"]["vocab"]
    # A list has (piece, score), and a piece that begins a word has a mark before it.
    pieces = (piece[1:] for piece, _ in entries if piece[0] == _WORD_MARK) if isinstance(entries, list) else entries
    words = sorted(word for word in pieces if len(word) > 2 and word.isascii() and word.isalpha())
    if len(words) < VOCABULARY_SIZE:
        raise ValueError(f"{model}: the vocabulary has {len(words)} plain words; {VOCABULARY_SIZE} are required")
    return random.Random(seed).sample(words, VOCABULARY_SIZE)


class Words:
    """Returns texts by number, as bytes that need no escaping in JSON."""

    def __init__(self, vocabulary: list[str], seed: int) -> None:
        self._vocabulary = [word.encode() for word in vocabulary]
        drawn = random.Random(seed).choices(self._vocabulary, k=_ROW_WORDS)
        self._row = b" ".join(drawn)
        self._starts = [0]
        for word in drawn:
            self._starts.append(self._starts[-1] + len(word) + 1)

    def text(self, number: int, words: int) -> bytes:
        """Return text `number` with `words` words. Raises ValueError for fewer than four, or a number too large."""
        if not 0 <= number <= LARGEST_NUMBER or words < NUMBER_WORDS:
            raise ValueError(f"no text with {words} words has the number {number}")
        code = (number * _SCATTER) & LARGEST_NUMBER
        spelled = [self._vocabulary[code >> shift & VOCABULARY_SIZE - 1] for shift in range(0, 44, _WORD_BITS)]
        if rest := words - NUMBER_WORDS:
            first = code % (_ROW_WORDS - rest)
            spelled.append(self._row[self._starts[first] : self._starts[first + rest] - 1])
        return b" ".join(spelled)

    def query(self, serial: int) -> bytes:
        """Return the query of request `serial`."""
        return self.text(serial, QUERY_WORDS)

    def documents(self, serial: int, count: int, words: int) -> list[bytes]:
        """Return the documents of request `serial`; `count` is at most 1,024."""
        first = serial * DOCUMENTS_PER_SERIAL
        return [self.text(number, words) for number in range(first, first + count)]
