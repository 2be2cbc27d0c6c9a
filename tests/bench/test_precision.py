import pytest

from bench.bare_engine import sample_pairs
from bench.precision import _changes
from bench.words import QUERY_WORDS, Words

VOCABULARY = [f"word{number}" for number in range(2048)]


def test_changes_are_the_largest_and_the_mean_difference() -> None:
    assert _changes([0.5, 0.25, 1.0], [0.5, 0.375, 0.9]) == ("0.1250", "0.0750")


def test_samples_of_different_length_are_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        _changes([0.5, 0.25], [0.5])


def test_the_sample_is_the_same_in_every_run_and_has_related_and_unrelated_pairs() -> None:
    queries, documents = sample_pairs(Words(VOCABULARY, seed=1))
    assert (queries, documents) == sample_pairs(Words(VOCABULARY, seed=1))
    assert len(set(zip(queries, documents, strict=True))) == 128
    assert documents[QUERY_WORDS].startswith(queries[QUERY_WORDS])
    assert not set(queries[0].split()) & set(documents[0].split()[:1])
