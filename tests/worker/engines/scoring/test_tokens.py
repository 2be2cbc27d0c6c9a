"""Texts to token ids, with real tokenizers made on the spot."""

from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from worker.engines.base import EngineStartError
from worker.engines.scoring.tokens import TextTokens

VOCABULARY = {"[UNK]": 0, "[CLS]": 1, "the": 2, "panda": 3, "##s": 4, "eats": 5, "istanbul": 6, "i": 7}


def tokenizer() -> Tokenizer:
    """Words to pieces; with special tokens, truncation and padding, as published ones come."""
    made = Tokenizer(models.WordPiece(vocab=VOCABULARY, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 1)])
    made.enable_truncation(2)
    made.enable_padding(length=20)
    return made


def tokens(made: Tokenizer | None = None, *, vocabulary: int = 100, lower_case: bool = False) -> TextTokens:
    # Transformers' tokenizers carry the real one in this attribute.
    return TextTokens(SimpleNamespace(_tokenizer=made or tokenizer()), vocabulary=vocabulary, lower_case=lower_case)


def test_a_text_has_its_own_tokens_and_no_special_ones_whatever_the_tokenizer_was_told() -> None:
    assert tokens().ids(["the pandas", "eats the panda", ""]) == [[2, 3, 4], [5, 2, 3], []]


def test_the_models_own_tokenizer_stays_as_it_was() -> None:
    made = tokenizer()
    tokens(made)
    assert made.encode("the pandas eats").ids[:3] == [1, 2, 0]


def test_a_text_that_is_no_unicode_has_no_tokens_and_harms_no_other() -> None:
    assert tokens().ids(["the", "\ud800", "panda"]) == [[2], None, [3]]


def test_a_token_that_the_model_does_not_know_leaves_a_text_without_tokens() -> None:
    assert tokens(vocabulary=5).ids(["the panda", "the panda eats"]) == [[2, 3], None]


def test_offsets_are_the_characters_of_each_token() -> None:
    assert tokens().offsets("The  pandas") == [(0, 3), (5, 10), (10, 11)]


def test_a_model_for_lower_case_reads_lower_case_without_moving_a_character() -> None:
    made = tokenizer()
    made.normalizer = normalizers.Sequence([])
    assert tokens(made).ids(["THE panda"]) == [[0, 3]]
    assert tokens(made, lower_case=True).ids(["THE panda"]) == [[2, 3]]
    # A capital I with a dot becomes two letters in lower case.
    assert tokens(made, lower_case=True).offsets("İ THE")[-1] == (2, 5)


def test_a_tokenizer_without_offsets_is_refused() -> None:
    with pytest.raises(EngineStartError, match="no fast tokenizer"):
        TextTokens(SimpleNamespace(), vocabulary=100)
