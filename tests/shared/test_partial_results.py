import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.contracts import Document, ScoreScale, ShardScores
from shared.ledger.encoding import decode_full_request, encode_documents, encode_known_scores, encode_request
from shared.partial_results import KnownScores, PairScore, merge_documents, merge_scores, split_known
from shared.sharding import shard_sizes
from tests.shared.support import make_request, properties

SIMILARITY = ScoreScale.SIMILARITY
KNOWN = PairScore(0.5, SIMILARITY)
letters = st.sampled_from("abcdef")


def score_of(text: str) -> PairScore:
    """The score of a text, always the same."""
    return PairScore(float(ord(text)), SIMILARITY, truncated=text == "a", window=(0, 1) if text == "b" else None)


def scores_of(texts: list[str]) -> ShardScores:
    pairs = [score_of(text) for text in texts]
    return ShardScores(
        scores=[pair.score for pair in pairs],
        scale=SIMILARITY,
        truncated=[position for position, pair in enumerate(pairs) if pair.truncated],
        windows={position: pair.window for position, pair in enumerate(pairs) if pair.window},
    )


class TestSplitKnown:
    def test_none_when_every_document_needs_scoring(self) -> None:
        assert split_known(["a", "b"], {}) is None
        assert split_known(["a", "b"], {"c": KNOWN}) is None

    def test_only_the_first_of_equal_texts_is_scored(self) -> None:
        known = split_known(["a", "b", "a", "a", "b"], {})
        assert known == KnownScores({}, {2: 0, 3: 0, 4: 1})

    def test_known_text_is_known_at_every_position(self) -> None:
        assert split_known(["a", "b", "a"], {"a": KNOWN}) == KnownScores({0: KNOWN, 2: KNOWN}, {})

    def test_similar_texts_are_not_duplicates(self) -> None:
        assert split_known(["a", "A", "a ", "ä", "a\u0308"], {}) is None


class TestMerge:
    def test_without_known_scores_shards_are_concatenated(self) -> None:
        shards = [ShardScores(scores=[0.1, None], scale=SIMILARITY, errors={1: "empty"}), scores_of(["b"])]
        assert merge_scores(shards, None) == [
            PairScore(0.1, SIMILARITY),
            PairScore(None, SIMILARITY, error="empty"),
            score_of("b"),
        ]

    def test_duplicates_of_a_failed_document_fail_too(self) -> None:
        shard = ShardScores(scores=[None], scale=SIMILARITY, errors={0: "empty"})
        merged = merge_scores([shard], split_known(["", ""], {}))
        assert merged == [PairScore(None, SIMILARITY, error="empty")] * 2

    def test_without_shards_known_scores_are_returned(self) -> None:
        assert merge_scores([], KnownScores({0: KNOWN, 1: score_of("a")})) == [KNOWN, score_of("a")]

    def test_known_score_of_zero_is_kept(self) -> None:
        zero = PairScore(0.0, ScoreScale.LOGIT)
        assert merge_scores([scores_of(["b"])], KnownScores({1: zero})) == [score_of("b"), zero]

    @properties
    @given(st.lists(letters, min_size=1, max_size=12), st.sets(letters), st.integers(1, 30))
    def test_every_document_gets_its_score_for_any_known_scores_and_shards(
        self, texts: list[str], known_texts: set[str], shard_tokens: int
    ) -> None:
        known = split_known(texts, {text: score_of(text) for text in known_texts})
        documents = [Document(text=text, id=position) for position, text in enumerate(texts)]
        scored = [document.text for document in (known.documents_to_score(documents) if known else documents)]
        assert len(scored) == len(set(scored)) == len(set(texts) - known_texts)

        shards, start = [], 0
        for size in shard_sizes("q", scored, shard_tokens):
            shards.append(scores_of(scored[start : start + size.pairs]))
            start += size.pairs
        assert merge_scores(shards, known) == [score_of(text) for text in texts]

    @properties
    @given(st.lists(letters, min_size=1, max_size=12), st.sets(letters))
    def test_encoded_request_is_decoded_in_its_order(self, texts: list[str], known_texts: set[str]) -> None:
        request = make_request().model_copy(
            update={"documents": [Document(text=text, id=position) for position, text in enumerate(texts)]}
        )
        known = split_known(texts, {text: score_of(text) for text in known_texts})
        scored = known.documents_to_score(request.documents) if known else request.documents
        stored = encode_known_scores(known, request.documents) if known else None
        decoded = decode_full_request(encode_request(request), [encode_documents(scored)], stored)
        assert decoded == (request, known)


def test_document_fields_are_stored_unchanged() -> None:
    fields = {"title": "ü 日本 🐼", "n": 1.0, "none": None, "deep": [{"x": True}]}
    request = make_request().model_copy(update={"documents": [Document(text="t", fields=fields), Document(text="t")]})
    known = split_known(["t", "t"], {"t": KNOWN})
    assert known is not None
    decoded, _ = decode_full_request(encode_request(request), [], encode_known_scores(known, request.documents))
    assert repr(decoded.documents) == repr(request.documents)


def test_merge_documents_rejects_missing_documents() -> None:
    with pytest.raises(ValueError, match="argument"):
        merge_documents(KnownScores({0: KNOWN, 1: KNOWN}), [Document(text="a")], [])
