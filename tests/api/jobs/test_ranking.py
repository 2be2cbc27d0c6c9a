import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.jobs.ranking import normalize, rank
from shared.contracts import RerankResult, ScoreScale, ShardScores
from shared.partial_results import KnownScores, PairScore
from tests.api.support import make_record
from tests.shared.support import MODEL, make_request, properties

LOGIT, SIMILARITY = ScoreScale.LOGIT, ScoreScale.SIMILARITY
shard_scores = st.lists(st.none() | st.floats(-1e3, 1e3), max_size=5)


def ranked(*shards: ShardScores, **fields: object) -> RerankResult:
    texts = [f"text {position}" for position in range(sum(len(shard.scores) for shard in shards))]
    return rank(make_record(), make_request(*texts, **fields), shards)


def similarities(*scores: float | None) -> ShardScores:
    return ShardScores(scores=list(scores), scale=SIMILARITY)


def logits(*scores: float | None) -> ShardScores:
    return ShardScores(scores=list(scores), scale=LOGIT)


def order(result: RerankResult) -> list[int]:
    return [row.index for row in result.rows]


def scores(result: RerankResult) -> list[float]:
    return [row.score for row in result.rows]


@pytest.mark.parametrize(
    ("logit", "expected"),
    [(0.0, 0.5), (2.0, 0.8807970779778823), (-2.0, 0.11920292202211755), (1e6, 1.0), (-1e6, 0.0), (-745.0, 5e-324)],
)
def test_logit_is_normalized_by_the_sigmoid(logit: float, expected: float) -> None:
    assert normalize(logit, LOGIT) == pytest.approx(expected, rel=1e-12, abs=0)


@properties
@given(st.floats(-30, 30), st.floats(-30, 30))
def test_normalization_keeps_the_order(one: float, other: float) -> None:
    if one < other:
        assert normalize(one, LOGIT) <= normalize(other, LOGIT)


@pytest.mark.parametrize("similarity", [-0.2, 0.0, 0.7, 1.0000001])
def test_similarity_is_not_changed(similarity: float) -> None:
    assert normalize(similarity, SIMILARITY) == similarity


def test_rows_are_sorted_by_score_with_their_index_in_the_request() -> None:
    result = ranked(similarities(0.1, 0.9, 0.5))
    assert order(result) == [1, 2, 0]
    assert scores(result) == [0.9, 0.5, 0.1]
    assert [row.document.text for row in result.rows] == ["text 1", "text 2", "text 0"]


def test_equal_scores_keep_the_requests_order() -> None:
    assert order(ranked(similarities(0.5, 0.9, 0.5, 0.9, 0.5))) == [1, 3, 0, 2, 4]
    assert order(ranked(similarities(0.0, -0.0, 0.0))) == [0, 1, 2]


@pytest.mark.parametrize(("top_n", "expected"), [(None, [1, 2, 0]), (1, [1]), (3, [1, 2, 0]), (99, [1, 2, 0])])
def test_top_n_limits_the_rows(top_n: int | None, expected: list[int]) -> None:
    assert order(ranked(similarities(0.1, 0.9, 0.5), top_n=top_n)) == expected


def test_raw_scores_are_not_normalized() -> None:
    assert scores(ranked(logits(-3.5, 8.25), raw_scores=True)) == [8.25, -3.5]
    assert scores(ranked(logits(-3.5, 8.25))) == [normalize(8.25, LOGIT), normalize(-3.5, LOGIT)]


def test_shards_are_merged_in_their_order() -> None:
    result = ranked(similarities(0.1, 0.2), similarities(), similarities(0.9), similarities(0.4))
    assert order(result) == [2, 3, 1, 0]
    assert result.rows[0].document.text == "text 2"


def test_truncated_documents_are_marked() -> None:
    first = ShardScores(scores=[0.1, 0.2], scale=SIMILARITY, truncated=[1])
    second = ShardScores(scores=[0.3, 0.4], scale=SIMILARITY, truncated=[0])
    result = ranked(first, second)
    assert {row.index for row in result.rows if row.truncated} == {1, 2}


class TestFailedDocuments:
    FAILED = ShardScores(scores=[None, 0.1, None], scale=SIMILARITY, errors={0: "empty", 2: "too long"})

    def test_failed_documents_come_last_in_the_requests_order(self) -> None:
        result = ranked(self.FAILED)
        assert [(row.index, row.error) for row in result.rows] == [(1, None), (0, "empty"), (2, "too long")]

    def test_failed_documents_have_score_0(self) -> None:
        assert scores(ranked(self.FAILED)) == [0.1, 0.0, 0.0]
        assert scores(ranked(similarities(None, None))) == [0.0, 0.0]

    def test_failed_documents_have_the_lowest_raw_score(self) -> None:
        assert scores(ranked(logits(-7.5, None, 3.0), raw_scores=True)) == [3.0, -7.5, -7.5]
        assert scores(ranked(logits(None), raw_scores=True)) == [0.0]

    def test_lowest_score_counts_even_when_top_n_removes_it(self) -> None:
        result = ranked(logits(5.0, -7.5), logits(None), raw_scores=True, top_n=3)
        assert scores(result) == [5.0, -7.5, -7.5]

    def test_failed_documents_come_after_negative_scores(self) -> None:
        assert order(ranked(similarities(None, -0.5, 0.0))) == [2, 1, 0]

    def test_failed_documents_stay_last_when_a_client_sorts_again(self) -> None:
        assert scores(ranked(similarities(None, -0.5, -0.1))) == [-0.1, -0.5, -0.5]


def test_result_has_the_fields_of_its_job() -> None:
    request = make_request("a", return_documents=False)
    first = ShardScores(scores=[0.5], scale=SIMILARITY, prompt_tokens=3, queue_ms=4.0, inference_ms=10.0)
    second = ShardScores(scores=[], scale=SIMILARITY, prompt_tokens=2, queue_ms=6.0, start_ms=5.5, inference_ms=5.0)
    result = rank(make_record("job-7"), request, [first, second])
    assert (result.id, result.model, result.created) == ("job-7", MODEL, 1_700_000_000)
    assert (result.prompt_tokens, result.queue_ms, result.start_ms, result.inference_ms) == (5, 6.0, 5.5, 15.0)
    assert not result.return_documents


def test_result_has_the_requested_model_name() -> None:
    assert ranked(similarities(0.5), model="an-alias").model == "an-alias"


class TestKnownScores:
    KNOWN = PairScore(2.0, LOGIT, truncated=True, window=(5, 9))

    def test_known_scores_are_merged_by_position(self) -> None:
        request = make_request("a", "b", "a", "c")
        result = rank(make_record(), request, [logits(1.0, 3.0)], KnownScores({1: self.KNOWN}, {2: 0}))
        assert [(row.index, row.document.text) for row in result.rows] == [(3, "c"), (1, "b"), (0, "a"), (2, "a")]
        assert scores(result) == [normalize(score, LOGIT) for score in (3.0, 2.0, 1.0, 1.0)]

    def test_known_scores_are_normalized(self) -> None:
        request = make_request("a", "b", raw_scores=True)
        assert scores(rank(make_record(), request, [logits(1.0)], KnownScores({0: self.KNOWN}))) == [2.0, 1.0]

    def test_known_scores_include_truncation_and_window(self) -> None:
        row = rank(make_record(), make_request("a", "b"), [logits(1.0)], KnownScores({0: self.KNOWN})).rows[0]
        assert (row.truncated, row.window) == (True, (5, 9))

    def test_known_scores_count_no_tokens(self) -> None:
        shard = ShardScores(scores=[1.0], scale=LOGIT, prompt_tokens=7)
        result = rank(make_record(), make_request("a", "b", "a", "b"), [shard], KnownScores({1: self.KNOWN}, {2: 0}))
        assert (result.prompt_tokens, result.cached_pairs) == (7, 1)
        assert ranked(shard).cached_pairs == 0


def test_best_window_is_reported() -> None:
    shard = ShardScores(scores=[1.0, 2.0], scale=LOGIT, windows={1: (0, 40)})
    assert [row.window for row in ranked(shard).rows] == [(0, 40), None]


@properties
@given(st.lists(shard_scores, max_size=4), st.none() | st.integers(1, 25), st.booleans(), st.sampled_from(ScoreScale))
def test_ranking_is_a_permutation_limited_to_top_n(
    raw: Sequence[list[float | None]], top_n: int | None, raw_scores: bool, scale: ScoreScale
) -> None:
    shards = [ShardScores(scores=part, scale=scale) for part in raw]
    flat = [score for part in raw for score in part]
    full = ranked(*shards, raw_scores=raw_scores)
    cut = ranked(*shards, raw_scores=raw_scores, top_n=top_n)

    assert sorted(order(full)) == list(range(len(flat)))
    assert cut.rows == full.rows[:top_n]
    assert all(math.isfinite(score) for score in scores(full))
    scored = [row.score for row in full.rows if flat[row.index] is not None]
    assert scored == sorted(scored, reverse=True)
    assert [flat[index] is None for index in order(full)] == sorted(score is None for score in flat)
