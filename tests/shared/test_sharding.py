import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.sharding import ShardSize, Windows, estimate_tokens, shard_sizes
from tests.shared.support import properties
from worker.engines.scoring.windows import token_windows, window_overlap

texts = st.text(max_size=60)
limits = st.integers(1, 60)


def pairs(sizes: list[ShardSize]) -> list[int]:
    """The number of documents in each shard."""
    return [size.pairs for size in sizes]


def pair_tokens(query: str, document: str, max_tokens_per_doc: int | None = None) -> int:
    """The estimated tokens of a pair: each pair includes the whole query."""
    tokens = estimate_tokens(document)
    return estimate_tokens(query) + 3 + (tokens if max_tokens_per_doc is None else min(tokens, max_tokens_per_doc))


@properties
@given(texts, st.lists(texts, max_size=20), limits, st.none() | st.integers(1, 20))
def test_every_document_is_in_a_shard_within_the_limit(
    query: str, documents: list[str], limit: int, max_tokens_per_doc: int | None
) -> None:
    sizes = shard_sizes(query, documents, limit, Windows(max_tokens_per_doc))
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
def test_shard_ends_only_when_the_next_document_does_not_fit(query: str, documents: list[str], limit: int) -> None:
    sizes = shard_sizes(query, documents, limit)
    start = 0
    for size in sizes[:-1]:
        including_next = documents[start : start + size.pairs + 1]
        assert sum(pair_tokens(query, text) for text in including_next) > limit
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
def test_shard_holds_at_least_one_pair(documents: list[str], sizes: list[int]) -> None:
    assert pairs(shard_sizes("q", documents, 25)) == sizes


def test_document_counts_up_to_max_tokens_per_doc() -> None:
    documents = ["long " * 1000] * 4
    assert pairs(shard_sizes("q", documents, 50)) == [1, 1, 1, 1]
    assert pairs(shard_sizes("q", documents, 50, Windows(10))) == [3, 1]


def test_document_in_windows_counts_up_to_all_windows() -> None:
    documents = ["long " * 20] * 4
    assert pairs(shard_sizes("q", documents, 60, Windows(10))) == [4]
    assert pairs(shard_sizes("q", documents, 60, Windows(10, 2))) == [2, 2]
    assert pairs(shard_sizes("q", documents, 60, Windows(10, 99))) == [1, 1, 1, 1]


def test_query_counts_up_to_max_tokens_per_query() -> None:
    assert pairs(shard_sizes("long " * 1000, ["one"] * 4, 50)) == [1, 1, 1, 1]
    assert pairs(shard_sizes("long " * 1000, ["one"] * 4, 50, max_tokens_per_query=10)) == [3, 1]


def test_without_a_limit_there_is_one_shard() -> None:
    assert shard_sizes("q", ["long " * 1000] * 2, None) == [ShardSize(2, 2 * pair_tokens("q", "long " * 1000))]


@pytest.mark.parametrize("text", ["", "word", "a few words", "日本語の文章", "Здравствуйте", "🐼", "\ud800", "ü" * 100])
def test_estimate_is_one_token_per_four_bytes(text: str) -> None:
    assert estimate_tokens(text) == len(text.encode(errors="replace")) // 4 + 1


class TestWindows:
    @properties
    @given(st.integers(1, 5000), st.integers(1, 600), st.integers(2, 50), st.none() | st.integers(0, 40))
    def test_the_estimate_is_what_the_worker_reads(
        self, tokens: int, size: int, at_most: int, overlap: int | None
    ) -> None:
        """The worker's own arithmetic, applied to the estimated tokens."""
        if overlap is not None and overlap >= size:
            return
        windows = Windows(size, at_most, overlap)
        read = token_windows(tokens, size, window_overlap(overlap, size), at_most)
        assert windows.count(tokens) == len(read)
        assert windows.tokens_read(tokens, 7) == pytest.approx(sum(end - first + 7 for first, end in read), abs=size)

    def test_every_window_includes_the_query(self) -> None:
        """One document, a token in each window: the engine reads the query four thousand times."""
        (size,) = shard_sizes("what is a panda", ["word " * 4000], None, Windows(1, 4000))
        assert size.tokens > 4000 * 6

    def test_a_short_document_is_one_window(self) -> None:
        assert shard_sizes("q", ["one"], None, Windows(100, 50)) == shard_sizes("q", ["one"], None)
