"""Decides what is read of a text that is over a limit: its beginning, its end, or nothing because that is forbidden.

Counts tokens (the lexical engine's are words) and knows no tokenizer. Every engine and every kind of scoring asks here.
"""

from collections.abc import Sequence
from typing import TypeVar

from shared.contracts import Truncation
from worker.engines.base import LimitRefused, ScoringBatch, TextOverLimit

PROMPT_LIMIT = "truncate_prompt_tokens"
"""What a request calls `max_prompt_tokens`."""

Token = TypeVar("Token")


def keep(tokens: Sequence[Token], count: int, truncation: Truncation) -> Sequence[Token]:
    """At most `count` of a text's tokens: the first ones, or the last ones when its beginning is cut off."""
    first, end = kept_range(len(tokens), count, truncation)
    return tokens[first:end]


def kept_range(tokens: int, count: int, truncation: Truncation) -> tuple[int, int]:
    """Which of a text's `tokens` tokens are read when at most `count` may be, as (first, last + 1)."""
    if tokens <= count:
        return 0, tokens
    return (tokens - count, tokens) if truncation is Truncation.START else (0, count)


def check_length(
    batch: ScoringBatch, text: int | str, tokens: int, limit: int | None, counted: str, limit_name: str = "the limit"
) -> None:
    """Raise TextOverLimit when `tokens` are over the limit and the batch forbids truncation."""
    if limit is not None and tokens > limit and batch.truncation is Truncation.NONE:
        raise TextOverLimit(text, tokens, limit, counted, limit_name)


def check_query(batch: ScoringBatch, tokens: int) -> None:
    """Raise TextOverLimit when the query is over the caller's own limit and the batch forbids truncation."""
    check_length(batch, "query", tokens, batch.max_tokens_per_query, "in the query", "max_tokens_per_query")


def check_document(batch: ScoringBatch, position: int, tokens: int) -> None:
    """Raise TextOverLimit when a document is over the caller's own limit and the batch forbids truncation."""
    check_length(batch, position, tokens, batch.max_tokens_per_doc, "in the document", "max_tokens_per_doc")


def prompt_limit(batch: ScoringBatch, model_tokens: int, other_tokens: int = 0) -> int:
    """The most tokens of one prompt: the model's limit `model_tokens`, or the caller's own one.

    Raises LimitRefused when the caller's is higher, or leaves no token for query and document besides the prompt's
    `other_tokens`.
    """
    limit = batch.max_prompt_tokens
    if limit is None:
        return model_tokens
    if limit > model_tokens:
        raise LimitRefused(
            f"{PROMPT_LIMIT} is {limit}, but the model reads at most {model_tokens} tokens", param=PROMPT_LIMIT
        )
    if limit < other_tokens + 2:
        raise LimitRefused(
            f"{PROMPT_LIMIT} is {limit}, but must be at least {other_tokens + 2}: {other_tokens} tokens of the prompt "
            "are neither query nor document",
            param=PROMPT_LIMIT,
        )
    return limit
