"""The embedding cache and the cosines."""

import threading

import numpy as np
import pytest

from worker.engines.scoring.embeddings import Embedded, EmbeddingCache, cosines, text_key, unit_vectors

KEYS = [text_key(f"text {number}") for number in range(100)]


def embedded(*rows: list[float]) -> Embedded:
    return Embedded(unit_vectors([np.array(row) for row in rows]))


def test_only_cached_entries_are_found() -> None:
    cache = EmbeddingCache(100_000)
    entry = embedded([1.0, 2.0])
    cache.put(KEYS[0], entry)
    assert cache.find(KEYS[:2]) == {KEYS[0]: entry}


def test_the_least_recently_used_entry_is_evicted_first() -> None:
    entry = embedded([1.0, 2.0])
    cache = EmbeddingCache(3 * entry.size)
    for key in KEYS[:3]:
        cache.put(key, entry)
    cache.find([KEYS[0]])
    cache.put(KEYS[3], entry)
    assert set(cache.find(KEYS[:4])) == {KEYS[0], KEYS[2], KEYS[3]}


def test_the_size_never_exceeds_the_limit() -> None:
    cache = EmbeddingCache(5000)
    for number, key in enumerate(KEYS):
        cache.put(key, embedded([1.0] * (1 + number)))
        assert cache.size <= 5000
    assert cache.size == sum(entry.size for entry in cache.find(KEYS).values())


def test_caching_a_text_again_counts_it_once() -> None:
    cache = EmbeddingCache(100_000)
    entry = embedded([1.0, 2.0])
    cache.put(KEYS[0], entry)
    cache.put(KEYS[0], entry)
    assert cache.size == entry.size


def test_an_entry_larger_than_the_cache_evicts_nothing() -> None:
    small = embedded([1.0, 2.0])
    cache = EmbeddingCache(small.size)
    cache.put(KEYS[0], small)
    cache.put(KEYS[1], embedded([1.0] * 1000))
    assert set(cache.find(KEYS)) == {KEYS[0]}


def test_a_limit_of_zero_disables_the_cache() -> None:
    cache = EmbeddingCache(0)
    cache.put(KEYS[0], embedded([1.0]))
    assert cache.find(KEYS) == {}


def test_the_size_is_correct_after_concurrent_use() -> None:
    cache = EmbeddingCache(20_000)
    entry = embedded([1.0] * 8)

    def work() -> None:
        for _ in range(50):
            for key in KEYS:
                cache.find([key])
                cache.put(key, entry)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.size == len(cache.find(KEYS)) * entry.size <= 20_000


def test_keys_differ_by_text_and_limits() -> None:
    keys = {
        text_key("panda", None, 1),
        text_key("panda", 5, 1),
        text_key("panda", 5, 2),
        text_key("Panda", None, 1),
        text_key("\ud800", None, 1),
    }
    assert len(keys) == 5
    assert text_key("panda", 5, 1) == text_key("panda", 5, 1)


def test_a_cosine_does_not_depend_on_vector_lengths() -> None:
    query = unit_vectors([[3.0, 0.0]])
    scores = [score for score, _ in cosines(query, [embedded([9.0, 0.0]), embedded([0.0, 2.0]), embedded([-1.0, 0.0])])]
    assert scores == pytest.approx([1, 0, -1])


def test_a_zero_vector_has_cosine_zero() -> None:
    assert cosines(unit_vectors([[1.0, 0.0]]), [embedded([0.0, 0.0])]) == [(0.0, 0)]


def test_a_document_gets_the_score_of_its_best_window() -> None:
    query = unit_vectors([[1.0, 0.0]])
    documents = [embedded([0.0, 1.0], [1.0, 1.0], [1.0, 0.1]), embedded([0.0, 1.0])]
    (best, window), (other, only) = cosines(query, documents)
    assert best == pytest.approx(0.995, abs=1e-3)
    assert (window, other, only) == (2, 0.0, 0)


def test_no_documents_have_no_cosines() -> None:
    assert cosines(unit_vectors([[1.0]]), []) == []
