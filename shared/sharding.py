"""Divides a job's pairs into shards by estimated tokens, so that an engine scores a shard in a few seconds. Pure.

Tokens are estimated, because the API has no tokenizer. Four bytes per token is about right for English, and too high
an estimate for most other scripts.
"""

from collections.abc import Sequence
from typing import NamedTuple

_BYTES_PER_TOKEN = 4
_SPECIAL_TOKENS = 3


class ShardSize(NamedTuple):
    """The number of pairs in a shard and their estimated tokens, which include the query once per pair."""

    pairs: int
    tokens: int


def estimate_tokens(text: str) -> int:
    """The estimated number of tokens of a text, at least 1."""
    size = len(text) if text.isascii() else len(text.encode(errors="replace"))
    return size // _BYTES_PER_TOKEN + 1


def shard_sizes(
    query: str,
    documents: Sequence[str],
    max_tokens: int | None,
    max_tokens_per_doc: int | None = None,
    *,
    max_tokens_per_query: int | None = None,
    max_chunks_per_doc: int = 1,
) -> list[ShardSize]:
    """The sizes of consecutive shards that together hold all documents.

    A shard has at least one pair, and at most `max_tokens` estimated tokens unless a single pair exceeds them. Text
    that the worker truncates (see RerankRequest) does not count. Without `max_tokens` there is one shard.
    """
    query_tokens = _at_most(estimate_tokens(query), max_tokens_per_query) + _SPECIAL_TOKENS
    document_limit = None if max_tokens_per_doc is None else max_tokens_per_doc * max_chunks_per_doc
    sizes: list[ShardSize] = []
    tokens = count = 0
    for document in documents:
        pair_tokens = _at_most(estimate_tokens(document), document_limit) + query_tokens
        if count and max_tokens is not None and tokens + pair_tokens > max_tokens:
            sizes.append(ShardSize(count, tokens))
            tokens = count = 0
        tokens += pair_tokens
        count += 1
    return [*sizes, ShardSize(count, tokens)] if count else sizes


def _at_most(tokens: int, limit: int | None) -> int:
    return tokens if limit is None else min(tokens, limit)
