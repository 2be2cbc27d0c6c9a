"""Learned layouts build the same prompts as real tokenizers."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from worker.engines.scoring.layouts import Layout, PromptTokens, learn_pair, learn_single

CLS, SEP = ("[CLS]", 0), ("[SEP]", 1)
TEMPLATES = {
    "bert": processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[CLS, SEP]
    ),
    "bert without template": processors.BertProcessing(SEP, CLS),
    "roberta": processors.RobertaProcessing(SEP, CLS),
    "end only": processors.TemplateProcessing(single="$A [SEP]", pair="$A $B [SEP]", special_tokens=[SEP]),
}


def make_tokenizer(template: str) -> Tokenizer:
    """A tokenizer with one token per letter."""
    letters = {chr(number): number for number in range(2, 0x250)}
    tokenizer = Tokenizer(models.WordLevel(vocab={"[CLS]": 0, "[SEP]": 1} | letters, unk_token="[CLS]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = TEMPLATES[template]
    return tokenizer


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def build_typed(tokenizer: Tokenizer, first: str, second: str) -> PromptTokens:
    """A pair with the position of its first token of type 1; the end when there is none."""
    encoded = tokenizer.encode(first, second)
    types = encoded.type_ids
    return encoded.ids, types.index(1) if 1 in types else len(types)


def build_untyped(tokenizer: Tokenizer, first: str, second: str) -> PromptTokens:
    return tokenizer.encode(first, second).ids, None


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("build", [build_typed, build_untyped])
@pytest.mark.parametrize(("first", "second"), [("a", "bc"), ("where is it", ""), ("", "x"), ("same", "same")])
def test_a_learned_pair_layout_builds_the_tokenizers_prompt(
    template: str, build: object, first: str, second: str
) -> None:
    tokenizer = make_tokenizer(template)
    is_typed = build is build_typed

    def render(one: str, other: str) -> PromptTokens:
        return build_typed(tokenizer, one, other) if is_typed else build_untyped(tokenizer, one, other)

    layout = learn_pair(render, lambda text: ids_of(tokenizer, text))
    assert layout is not None
    assert layout.pair(ids_of(tokenizer, first), ids_of(tokenizer, second)) == render(first, second)
    assert layout.special_tokens == tokenizer.num_special_tokens_to_add(True)


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_learned_single_layout_builds_the_tokenizers_prompt(template: str) -> None:
    tokenizer = make_tokenizer(template)
    layout = learn_single(lambda text: tokenizer.encode(text).ids, lambda text: ids_of(tokenizer, text))
    assert layout is not None
    assert layout.single(ids_of(tokenizer, "any")) == tokenizer.encode("any").ids
    assert layout.special_tokens == tokenizer.num_special_tokens_to_add(False)


def test_special_tokens_that_depend_on_the_texts_have_no_layout() -> None:
    tokenizer = make_tokenizer("bert")

    def with_length(first: str, second: str) -> PromptTokens:
        return [len(second), *ids_of(tokenizer, first), *ids_of(tokenizer, second)], None

    assert learn_pair(with_length, lambda text: ids_of(tokenizer, text)) is None


def test_prompts_without_the_tokens_of_the_texts_have_no_layout() -> None:
    tokenizer = make_tokenizer("bert")

    def in_upper_case(text: str) -> list[int]:
        return ids_of(tokenizer, text.upper())

    assert learn_single(in_upper_case, lambda text: ids_of(tokenizer, text)) is None
    assert (
        learn_pair(lambda first, second: (in_upper_case(first + second), None), lambda text: ids_of(tokenizer, text))
        is None
    )


def test_an_empty_layout_adds_no_tokens() -> None:
    assert Layout([], [], []).pair([1], [2]) == ([1, 2], None)
