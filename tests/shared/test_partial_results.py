import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.contracts import Document, ScoreScale, ShardScores
from shared.ledger.encoding import decode_full_request, encode_documents, encode_known_scores, encode_request
from shared.partial_results import KnownScores, PairScore, merge_documents, merge_scores, split_known
from shared.sharding import cut
from tests.shared.support import make_request, properties

SIMILARITY = ScoreScale.SIMILARITY
KNOWN = PairScore(0.5, SIMILARITY)
letters = st.sampled_from("abcdef")


def score_of(text: str) -> PairScore:
    """What the model says of a text, always the same."""
    return PairScore(float(ord(text)), SIMILARITY, truncated=text == "a", window=(0, 1) if text == "b" else None)


def scores_of(texts: list[str]) -> ShardScores:
    pairs = [score_of(text) for text in texts]
    return ShardScores(
        scores=[pair.score for pair in pairs],
        scale=SIMILARITY,
        truncated=[position for position, pair in enumerate(pairs) if pair.truncated],
        windows={position: pair.window for position, pair in enumerate(pairs) if pair.window},
    )


class TestSettingApart:
    def test_a_request_of_which_all_is_to_be_scored_has_no_rest(self) -> None:
        assert split_known(["a", "b"], {}) is None
        assert split_known(["a", "b"], {"c": KNOWN}) is None

    def test_of_equal_texts_the_first_one_is_scored(self) -> None:
        rest = split_known(["a", "b", "a", "a", "b"], {})
        assert rest == KnownScores({}, {2: 0, 3: 0, 4: 1})

    def test_a_known_text_is_known_wherever_it_stands(self) -> None:
        assert split_known(["a", "b", "a"], {"a": KNOWN}) == KnownScores({0: KNOWN, 2: KNOWN}, {})

    def test_texts_are_equal_only_when_they_are_the_same(self) -> None:
        assert split_known(["a", "A", "a ", "ä", "a\u0308"], {}) is None


class TestAssembling:
    def test_without_a_rest_it_is_the_shards_in_their_order(self) -> None:
        shards = [ShardScores(scores=[0.1, None], scale=SIMILARITY, errors={1: "empty"}), scores_of(["b"])]
        assert merge_scores(shards, None) == [
            PairScore(0.1, SIMILARITY),
            PairScore(None, SIMILARITY, error="empty"),
            score_of("b"),
        ]

    def test_a_document_that_failed_fails_wherever_it_is_repeated(self) -> None:
        shard = ShardScores(scores=[None], scale=SIMILARITY, errors={0: "empty"})
        whole = merge_scores([shard], split_known(["", ""], {}))
        assert whole == [PairScore(None, SIMILARITY, error="empty")] * 2

    def test_without_a_shard_it_is_what_was_known(self) -> None:
        assert merge_scores([], KnownScores({0: KNOWN, 1: score_of("a")})) == [KNOWN, score_of("a")]

    def test_a_known_score_of_zero_is_known(self) -> None:
        zero = PairScore(0.0, ScoreScale.LOGIT)
        assert merge_scores([scores_of(["b"])], KnownScores({1: zero})) == [score_of("b"), zero]

    @properties
    @given(st.lists(letters, min_size=1, max_size=12), st.sets(letters), st.integers(1, 30))
    def test_every_document_gets_its_own_score_whatever_was_known_and_however_the_rest_is_cut(
        self, texts: list[str], known: set[str], shard_tokens: int
    ) -> None:
        rest = split_known(texts, {text: score_of(text) for text in known})
        documents = [Document(text=text, id=position) for position, text in enumerate(texts)]
        scored = [document.text for document in (rest.scored(documents) if rest else documents)]
        assert len(scored) == len(set(scored)) == len(set(texts) - known)

        shards, start = [], 0
        for size in cut("q", scored, shard_tokens):
            shards.append(scores_of(scored[start : start + size.pairs]))
            start += size.pairs
        assert merge_scores(shards, rest) == [score_of(text) for text in texts]

    @properties
    @given(st.lists(letters, min_size=1, max_size=12), st.sets(letters))
    def test_the_whole_request_comes_back_from_the_store_in_its_order(self, texts: list[str], known: set[str]) -> None:
        request = make_request().model_copy(
            update={"documents": [Document(text=text, id=position) for position, text in enumerate(texts)]}
        )
        rest = split_known(texts, {text: score_of(text) for text in known})
        scored = rest.scored(request.documents) if rest else request.documents
        stored = encode_known_scores(rest, request.documents) if rest else None
        whole = decode_full_request(encode_request(request), [encode_documents(scored)], stored)
        assert whole == (request, rest)


def test_an_object_is_stored_with_its_fields_as_they_came() -> None:
    mine = {"title": "ü 日本 🐼", "n": 1.0, "none": None, "deep": [{"x": True}]}
    request = make_request().model_copy(update={"documents": [Document(text="t", fields=mine), Document(text="t")]})
    rest = split_known(["t", "t"], {"t": KNOWN})
    assert rest is not None
    decoded, _ = decode_full_request(encode_request(request), [], encode_known_scores(rest, request.documents))
    assert repr(decoded.documents) == repr(request.documents)


def test_what_is_stored_must_fit_together() -> None:
    with pytest.raises(ValueError, match="argument"):
        merge_documents(KnownScores({0: KNOWN, 1: KNOWN}), [Document(text="a")], [])
