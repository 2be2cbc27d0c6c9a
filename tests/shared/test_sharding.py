import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.sharding import ShardSize, cut, estimate_tokens
from tests.shared.support import properties

texts = st.text(max_size=60)
limits = st.integers(1, 60)


def pairs(sizes: list[ShardSize]) -> list[int]:
    """How many documents each shard has."""
    return [size.pairs for size in sizes]


def pair_tokens(query: str, document: str, max_tokens_per_doc: int | None = None) -> int:
    """What a pair is taken for: its query counts whole, with every document."""
    tokens = estimate_tokens(document)
    return estimate_tokens(query) + 3 + (tokens if max_tokens_per_doc is None else min(tokens, max_tokens_per_doc))


@properties
@given(texts, st.lists(texts, max_size=20), limits, st.none() | st.integers(1, 20))
def test_every_document_is_in_a_shard_and_no_shard_is_empty_or_over_the_limit(
    query: str, documents: list[str], limit: int, max_tokens_per_doc: int | None
) -> None:
    sizes = cut(query, documents, limit, max_tokens_per_doc)
    assert sum(size.pairs for size in sizes) == len(documents)
    assert all(size.pairs >= 1 for size in sizes)
    start = 0
    for size in sizes:
        shard = documents[start : start + size.pairs]
        start += size.pairs
        assert size.tokens == sum(pair_tokens(query, text, max_tokens_per_doc) for text in shard)
        assert size.pairs == 1 or size.tokens <= limit


@properties
@given(texts, st.lists(texts, max_size=20), limits)
def test_no_shard_ends_before_it_has_to(query: str, documents: list[str], limit: int) -> None:
    sizes = cut(query, documents, limit)
    start = 0
    for size in sizes[:-1]:
        with_the_next = documents[start : start + size.pairs + 1]
        assert sum(pair_tokens(query, text) for text in with_the_next) > limit
        start += size.pairs


@pytest.mark.parametrize(
    ("documents", "sizes"),
    [
        ([], []),
        (["one"], [1]),
        (["long " * 1000], [1]),
        (["one", "long " * 1000, "two"], [1, 1, 1]),
        (["one"] * 10, [5, 5]),
        (["one"] * 11, [5, 5, 1]),
    ],
)
def test_a_shard_holds_what_fits_and_at_least_one_pair(documents: list[str], sizes: list[int]) -> None:
    assert pairs(cut("q", documents, 25)) == sizes


def test_a_document_counts_for_no_more_than_will_be_read_of_it() -> None:
    documents = ["long " * 1000] * 4
    assert pairs(cut("q", documents, 50)) == [1, 1, 1, 1]
    assert pairs(cut("q", documents, 50, max_tokens_per_doc=10)) == [3, 1]


def test_a_document_that_is_read_in_windows_counts_for_all_of_them() -> None:
    documents = ["long " * 20] * 4
    assert pairs(cut("q", documents, 50, max_tokens_per_doc=10)) == [3, 1]
    assert pairs(cut("q", documents, 50, max_tokens_per_doc=10, max_chunks_per_doc=2)) == [2, 2]
    assert pairs(cut("q", documents, 50, max_tokens_per_doc=10, max_chunks_per_doc=99)) == [1, 1, 1, 1]


def test_a_query_counts_for_no_more_than_will_be_read_of_it() -> None:
    assert pairs(cut("long " * 1000, ["one"] * 4, 50)) == [1, 1, 1, 1]
    assert pairs(cut("long " * 1000, ["one"] * 4, 50, max_tokens_per_query=10)) == [3, 1]


def test_what_may_not_be_cut_is_one_shard() -> None:
    assert cut("q", ["long " * 1000] * 2, None) == [ShardSize(2, 2 * pair_tokens("q", "long " * 1000))]


@pytest.mark.parametrize("text", ["", "word", "a few words", "日本語の文章", "Здравствуйте", "🐼", "\ud800", "ü" * 100])
def test_an_estimate_is_a_token_for_every_four_bytes(text: str) -> None:
    assert estimate_tokens(text) == len(text.encode(errors="replace")) // 4 + 1
