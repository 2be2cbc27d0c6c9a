"""Token ids and offsets of texts, with real tokenizers built in the test."""

from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from worker.engines.base import EngineStartError
from worker.engines.scoring.tokens import TextTokens

VOCABULARY = {"[UNK]": 0, "[CLS]": 1, "the": 2, "panda": 3, "##s": 4, "eats": 5, "istanbul": 6, "i": 7}


def tokenizer() -> Tokenizer:
    """A word-piece tokenizer with special tokens, truncation and padding, like published ones."""
    made = Tokenizer(models.WordPiece(vocab=VOCABULARY, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 1)])
    made.enable_truncation(2)
    made.enable_padding(length=20)
    return made


def tokens(made: Tokenizer | None = None, *, vocabulary: int = 100, lower_case: bool = False) -> TextTokens:
    # Transformers' tokenizers have the wrapped tokenizer in this attribute.
    return TextTokens(SimpleNamespace(_tokenizer=made or tokenizer()), vocabulary=vocabulary, lower_case=lower_case)


def test_ids_have_no_special_tokens_truncation_or_padding() -> None:
    assert tokens().ids(["the pandas", "eats the panda", ""]) == [[2, 3, 4], [5, 2, 3], []]


def test_the_models_tokenizer_is_not_modified() -> None:
    made = tokenizer()
    tokens(made)
    assert made.encode("the pandas eats").ids[:3] == [1, 2, 0]


def test_only_the_text_with_an_unpaired_surrogate_has_no_ids() -> None:
    assert tokens().ids(["the", "\ud800", "panda"]) == [[2], None, [3]]


def test_a_text_with_a_token_outside_the_vocabulary_has_no_ids() -> None:
    assert tokens(vocabulary=5).ids(["the panda", "the panda eats"]) == [[2, 3], None]


def test_offsets_are_the_character_range_of_each_token() -> None:
    assert tokens().offsets("The  pandas") == [(0, 3), (5, 10), (10, 11)]


def test_lower_casing_keeps_the_offsets() -> None:
    made = tokenizer()
    made.normalizer = normalizers.Sequence([])
    assert tokens(made).ids(["THE panda"]) == [[0, 3]]
    assert tokens(made, lower_case=True).ids(["THE panda"]) == [[2, 3]]
    # The lower case of a capital I with a dot has two characters.
    assert tokens(made, lower_case=True).offsets("İ THE")[-1] == (2, 5)


def test_a_tokenizer_without_offsets_is_rejected() -> None:
    with pytest.raises(EngineStartError, match="no fast tokenizer"):
        TextTokens(SimpleNamespace(), vocabulary=100)
