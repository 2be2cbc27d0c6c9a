"""A cache of embeddings and the cosines between them. Stores digests of texts, never the texts."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

_ENTRY_OVERHEAD = 400
"""The size of an entry in bytes in addition to its numbers, for Python objects."""
_SMALLEST_NORM = 1e-8

Vectors = Any
"""A numpy array of float32, one unit vector a row."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """A text's unit vectors, [windows, dimensions]. `windows` are character ranges when it was divided, else None."""

    vectors: Vectors
    windows: list[tuple[int, int]] | None = None
    truncated: bool = False

    @property
    def size(self) -> int:
        """Approximate size in bytes."""
        return int(self.vectors.nbytes) + _ENTRY_OVERHEAD + 120 * len(self.windows or ())


class EmbeddingCache:
    """An LRU cache of at most `limit` bytes (0 disables it). Safe to share between threads."""

    def __init__(self, limit: int, on_lookup: Callable[[int, int], None] = lambda hits, misses: None) -> None:
        """`on_lookup` is called with the hits and misses of each `find`."""
        self._limit = limit
        self._on_lookup = on_lookup
        self._lock = threading.Lock()
        self._entries: OrderedDict[bytes, Embedded] = OrderedDict()
        self._size = 0

    @property
    def size(self) -> int:
        """Approximate size of all entries in bytes."""
        return self._size

    def find(self, keys: list[bytes]) -> dict[bytes, Embedded]:
        """The cached entries of these keys."""
        found: dict[bytes, Embedded] = {}
        with self._lock:
            for key in keys:
                if (entry := self._entries.get(key)) is not None:
                    self._entries.move_to_end(key)
                    found[key] = entry
        self._on_lookup(len(found), len(keys) - len(found))
        return found

    def put(self, key: bytes, entry: Embedded) -> None:
        """Add an entry, and evict the least recently used ones."""
        if entry.size > self._limit:
            return
        with self._lock:
            if (replaced := self._entries.pop(key, None)) is not None:
                self._size -= replaced.size
            self._entries[key] = entry
            self._size += entry.size
            while self._size > self._limit:
                _, oldest = self._entries.popitem(last=False)
                self._size -= oldest.size


def text_key(text: str, *cuts: int | str | None) -> bytes:
    """A digest of a text and of everything that decides where it is divided."""
    return hashlib.blake2b(f"{cuts}{text}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


def unit_vectors(rows: list[Any]) -> Vectors:
    """Normalize rows: a list of [dimensions] to [rows, dimensions]. Zero vectors stay zero."""
    matrix = np.asarray(rows, dtype=np.float32)
    norms = np.linalg.norm(matrix, axis=1, keepdims=True)
    return matrix / np.maximum(norms, _SMALLEST_NORM)


def cosines(query: Vectors, documents: list[Embedded]) -> list[tuple[float, int]]:
    """Each document's best cosine with the query ([1, dimensions]), and the index of its window."""
    if not documents:
        return []
    every = np.concatenate([document.vectors for document in documents]) @ query[0]
    if len(every) == len(documents):
        return [(score, 0) for score in every.tolist()]
    best: list[tuple[float, int]] = []
    start = 0
    for document in documents:
        scores = every[start : start + len(document.vectors)]
        window = int(scores.argmax())
        best.append((float(scores[window]), window))
        start += len(scores)
    return best
