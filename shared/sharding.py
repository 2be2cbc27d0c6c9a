"""Where a job's pairs are cut into shards: so that one shard is a few seconds of an engine's time. Pure.

Tokens are estimated, never counted: a tokenizer belongs to a model, and the API has none. Four bytes a token is about
right for English and on the safe side for most other scripts.
"""

from collections.abc import Sequence
from typing import NamedTuple

_BYTES_PER_TOKEN = 4
_SPECIAL_TOKENS = 3


class ShardSize(NamedTuple):
    """How much a shard is: documents, and estimated tokens with the query counted for each of them."""

    pairs: int
    tokens: int


def estimate_tokens(text: str) -> int:
    """About how many tokens a text has."""
    size = len(text) if text.isascii() else len(text.encode(errors="replace"))
    return size // _BYTES_PER_TOKEN + 1


def cut(
    query: str,
    documents: Sequence[str],
    max_tokens: int | None,
    max_tokens_per_doc: int | None = None,
    *,
    max_tokens_per_query: int | None = None,
    max_chunks_per_doc: int = 1,
) -> list[ShardSize]:
    """The sizes of the shards, in order; together they are all documents.

    A shard holds pairs of at most `max_tokens` estimated tokens together, but at least one pair. What will not be
    read of a text (see RerankRequest) does not count. Without `max_tokens` there is one shard.
    """
    query_tokens = _at_most(estimate_tokens(query), max_tokens_per_query) + _SPECIAL_TOKENS
    read_of_a_document = None if max_tokens_per_doc is None else max_tokens_per_doc * max_chunks_per_doc
    sizes: list[ShardSize] = []
    tokens = count = 0
    for document in documents:
        pair = _at_most(estimate_tokens(document), read_of_a_document) + query_tokens
        if count and max_tokens is not None and tokens + pair > max_tokens:
            sizes.append(ShardSize(count, tokens))
            tokens = count = 0
        tokens += pair
        count += 1
    return [*sizes, ShardSize(count, tokens)] if count else sizes


def _at_most(tokens: int, limit: int | None) -> int:
    return tokens if limit is None else min(tokens, limit)
