"""Prompts put together as real tokenizers put them."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from worker.engines.scoring.layouts import Built, Layout, learn_pair, learn_single

CLS, SEP = ("[CLS]", 0), ("[SEP]", 1)
TEMPLATES = {
    "bert": processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[CLS, SEP]
    ),
    "bert of old": processors.BertProcessing(SEP, CLS),
    "roberta": processors.RobertaProcessing(SEP, CLS),
    "end alone": processors.TemplateProcessing(single="$A [SEP]", pair="$A $B [SEP]", special_tokens=[SEP]),
}


def tokenizer(template: str) -> Tokenizer:
    """One token a letter."""
    letters = {chr(number): number for number in range(2, 0x250)}
    made = Tokenizer(models.WordLevel(vocab={"[CLS]": 0, "[SEP]": 1} | letters, unk_token="[CLS]"))
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    made.post_processor = TEMPLATES[template]
    return made


def ids_of(made: Tokenizer, text: str) -> list[int]:
    ids: list[int] = made.encode(text, add_special_tokens=False).ids
    return ids


def build_typed(made: Tokenizer, first: str, second: str) -> Built:
    """A pair with its types, as a library tells them: where the first 1 is, or else the end."""
    encoded = made.encode(first, second)
    types = encoded.type_ids
    return encoded.ids, types.index(1) if 1 in types else len(types)


def build_untyped(made: Tokenizer, first: str, second: str) -> Built:
    return made.encode(first, second).ids, None


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("build", [build_typed, build_untyped])
@pytest.mark.parametrize(("first", "second"), [("a", "bc"), ("where is it", ""), ("", "x"), ("same", "same")])
def test_a_learnt_pair_is_the_tokenizers_own(template: str, build: object, first: str, second: str) -> None:
    made = tokenizer(template)
    typed = build is build_typed

    def of(one: str, other: str) -> Built:
        return build_typed(made, one, other) if typed else build_untyped(made, one, other)

    layout = learn_pair(of, lambda text: ids_of(made, text))
    assert layout is not None
    assert layout.pair(ids_of(made, first), ids_of(made, second)) == of(first, second)
    assert layout.special_tokens == made.num_special_tokens_to_add(True)


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_learnt_text_is_the_tokenizers_own(template: str) -> None:
    made = tokenizer(template)
    layout = learn_single(lambda text: made.encode(text).ids, lambda text: ids_of(made, text))
    assert layout is not None
    assert layout.single(ids_of(made, "any")) == made.encode("any").ids
    assert layout.special_tokens == made.num_special_tokens_to_add(False)


def test_prompts_whose_surroundings_depend_on_the_texts_have_no_layout() -> None:
    made = tokenizer("bert")

    def counted(first: str, second: str) -> Built:
        return [len(second), *ids_of(made, first), *ids_of(made, second)], None

    assert learn_pair(counted, lambda text: ids_of(made, text)) is None


def test_prompts_that_do_not_hold_the_texts_own_tokens_have_no_layout() -> None:
    made = tokenizer("bert")

    def shouted(text: str) -> list[int]:
        return ids_of(made, text.upper())

    assert learn_single(shouted, lambda text: ids_of(made, text)) is None
    assert learn_pair(lambda first, second: (shouted(first + second), None), lambda text: ids_of(made, text)) is None


def test_a_layout_without_anything_around_adds_nothing() -> None:
    assert Layout([], [], []).pair([1], [2]) == ([1, 2], None)
