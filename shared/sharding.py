"""Divides a job's pairs into shards by estimated tokens, so that an engine scores a shard in a few seconds. Pure.

Tokens are estimated, because the API has no tokenizer. Four bytes per token is about right for English, and too high
an estimate for most other scripts.
"""

from collections.abc import Sequence
from typing import NamedTuple

_BYTES_PER_TOKEN = 4
_SPECIAL_TOKENS = 3
_OVERLAP_SHARE = 8
"""As in worker.engines.scoring.windows."""


class ShardSize(NamedTuple):
    """The number of pairs in a shard and their estimated tokens, which include the query once per window."""

    pairs: int
    tokens: int


def estimate_tokens(text: str) -> int:
    """The estimated number of tokens of a text, at least 1."""
    size = len(text) if text.isascii() else len(text.encode(errors="replace"))
    return size // _BYTES_PER_TOKEN + 1


class Windows(NamedTuple):
    """How a long document is divided into windows; see RerankRequest. `size` is a window's tokens; None: no limit."""

    size: int | None = None
    at_most: int = 1
    overlap: int | None = None

    def count(self, tokens: int) -> int:
        """The number of windows of a document."""
        if self.at_most == 1 or self.size is None or tokens <= self.size:
            return 1
        step = max(1, self.size - self._overlap())
        return min(self.at_most, 1 + -(-(tokens - self.size) // step))

    def tokens_read(self, tokens: int, query_tokens: int) -> int:
        """The tokens that the engine reads for a document: its windows, each with the query."""
        windows = self.count(tokens)
        if self.size is not None:
            tokens = min(tokens + (windows - 1) * self._overlap(), windows * self.size)
        return tokens + windows * query_tokens

    def _overlap(self) -> int:
        assert self.size is not None
        return self.size // _OVERLAP_SHARE if self.overlap is None else self.overlap


def shard_sizes(
    query: str,
    documents: Sequence[str],
    max_tokens: int | None,
    windows: Windows = Windows(),  # noqa: B008
    *,
    max_tokens_per_query: int | None = None,
) -> list[ShardSize]:
    """The sizes of consecutive shards that together hold all documents.

    A shard has at least one pair, and at most `max_tokens` estimated tokens unless a single pair exceeds them. Text
    that the worker truncates (see RerankRequest) does not count, and text that it reads several times counts as often.
    Without `max_tokens` there is one shard.
    """
    query_tokens = _at_most(estimate_tokens(query), max_tokens_per_query) + _SPECIAL_TOKENS
    sizes: list[ShardSize] = []
    tokens = count = 0
    for document in documents:
        pair_tokens = estimate_tokens(document)
        if windows.at_most == 1:
            pair_tokens = _at_most(pair_tokens, windows.size) + query_tokens
        else:
            pair_tokens = windows.tokens_read(pair_tokens, query_tokens)
        if count and max_tokens is not None and tokens + pair_tokens > max_tokens:
            sizes.append(ShardSize(count, tokens))
            tokens = count = 0
        tokens += pair_tokens
        count += 1
    return [*sizes, ShardSize(count, tokens)] if count else sizes


def _at_most(tokens: int, limit: int | None) -> int:
    return tokens if limit is None else min(tokens, limit)
