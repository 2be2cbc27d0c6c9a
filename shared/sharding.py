"""Where a job's pairs are cut into shards: so that one shard is a few seconds of an engine's time. Pure.

Tokens are estimated, never counted: a tokenizer belongs to a model, and the API has none. Four bytes a token is about
right for English and on the safe side for most other scripts.
"""

from collections.abc import Sequence

_BYTES_PER_TOKEN = 4
_SPECIAL_TOKENS = 3


def estimate_tokens(text: str) -> int:
    """About how many tokens a text has."""
    size = len(text) if text.isascii() else len(text.encode(errors="replace"))
    return size // _BYTES_PER_TOKEN + 1


def cut(query: str, documents: Sequence[str], max_tokens: int, max_tokens_per_doc: int | None = None) -> list[int]:
    """The number of documents in each shard, in order; their sum is all of them.

    A shard holds pairs of at most `max_tokens` estimated tokens together, but at least one pair.
    """
    query_tokens = estimate_tokens(query) + _SPECIAL_TOKENS
    sizes: list[int] = []
    tokens = count = 0
    for document in documents:
        pair = estimate_tokens(document)
        if max_tokens_per_doc is not None:
            pair = min(pair, max_tokens_per_doc)
        pair += query_tokens
        if count and tokens + pair > max_tokens:
            sizes.append(count)
            tokens = count = 0
        tokens += pair
        count += 1
    return [*sizes, count] if count else sizes
