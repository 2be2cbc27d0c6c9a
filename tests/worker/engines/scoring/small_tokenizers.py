"""Small tokenizers, put together like those of published models, and texts of many scripts to train and try them on."""

from collections.abc import Callable
from functools import cache
from io import BytesIO
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

TEXTS = [
    "What is a panda? The giant panda is a bear species endemic to China; it eats bamboo, and it rests a lot.",
    "Don't panic: it's 1,864 of them (in 2014), says http://example.org/a-b_c?d=1&e=2 - isn't it, we'll see!",
    "Η αρκούδα πάντα ζει στην Κίνα. ΟΔΥΣΣΕΥΣ, ΣΟΦΟΣ! Большая панда — млекопитающее семейства медвежьих.",
    "大熊猫是中国特有的一种熊科动物，以竹子为食。它们住在四川、陕西和甘肃！你知道吗？（是的）「好」",
    "ジャイアントパンダは、中国に生息するクマです。한국어 문장도 있습니다. 판다는 곰입니다.",
    "الباندا العملاقة دب يعيش في الصين، ويأكل الخيزران؟ विशाल पांडा एक भालू है। แพนด้ายักษ์เป็นหมี",
    "Ünïcödé ﬁne ℌ ½ ① ＡＢＣ，ｄ é e\u0301 İstanbul naïve a\u0338 =\u0338 x \u0301y \u0600 9 ൎക \u200dz 🐼🏽 👨‍👩‍👧",
    "def f(x):\n    return {'a': [1, 2]}\n\n\n\tif x <= y:\r\n  a  b   c      d",
    "[SEP] </s> <s> <|im_end|> <think> ＜／ｓ＞ <unk> [UNK] yes ``quoted'' ▁under▁line",
]
"""The last one has control tokens, and full-width letters that become one when they are normalized."""

SPECIAL = ["<unk>", "<s>", "</s>", "[UNK]", "[SEP]", "<|im_end|>"]
CONTROL = AddedToken("<think>", special=False, normalized=False)
WORDS = [AddedToken(text, special=False, normalized=True) for text in ("\n\n", "  ", "    ", "covid")]

GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
QWEN = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{CONTRACTIONS}?|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{CONTRACTIONS}?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def split_bytes(pattern: str) -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def word_pieces(normalizer: normalizers.Normalizer, pre_tokenizer: pre_tokenizers.PreTokenizer) -> Tokenizer:
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizer, pre_tokenizer
    made.train_from_iterator(TEXTS[:-1], trainers.WordPieceTrainer(vocab_size=500, special_tokens=SPECIAL))
    return made


def byte_pairs(
    pre_tokenizer: pre_tokenizers.PreTokenizer, normalizer: normalizers.Normalizer | None = None
) -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        made.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(TEXTS[:-1], trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet))
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(SPECIAL)
    made.add_tokens([*WORDS, CONTROL])
    return made


def character_pairs(
    normalizer: normalizers.Normalizer, pre_tokenizer: pre_tokenizers.PreTokenizer | None, *, across_words: bool = False
) -> Tokenizer:
    """Byte pairs of characters, like those of SentencePiece; `across_words`: a piece may have parts of two words."""
    made = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    made.normalizer = normalizer
    if not across_words:
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    made.train_from_iterator(TEXTS[:-1], trainers.BpeTrainer(vocab_size=500, special_tokens=SPECIAL))
    plain = Tokenizer(made.model)
    plain.normalizer = normalizer
    plain.add_special_tokens(SPECIAL)
    if pre_tokenizer is not None:
        plain.pre_tokenizer = pre_tokenizer
    return plain


def unigrams(normalizer: normalizers.Normalizer, pre_tokenizer: pre_tokenizers.PreTokenizer) -> Tokenizer:
    made = Tokenizer(models.Unigram())
    made.normalizer, made.pre_tokenizer = normalizer, pre_tokenizer
    trainer = trainers.UnigramTrainer(vocab_size=500, special_tokens=SPECIAL, unk_token="<unk>")
    made.train_from_iterator(TEXTS[:-1], trainer)
    made.add_tokens([CONTROL])
    return made


def charsmap() -> normalizers.Normalizer:
    """The normalizer of SentencePiece models, with SentencePiece's own table."""
    model = BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=model, vocab_size=300, hard_vocab_limit=False, minloglevel=2
    )
    messages: Any = sentencepiece_model_pb2
    parsed = messages.ModelProto.FromString(model.getvalue())
    return normalizers.Precompiled(parsed.normalizer_spec.precompiled_charsmap)


def _deberta() -> Tokenizer:
    spaces = normalizers.Replace(Regex(" {2,}"), " ")
    normalizer = normalizers.Sequence([normalizers.Strip(), charsmap(), spaces])
    return unigrams(normalizer, pre_tokenizers.Sequence([pre_tokenizers.Metaspace()]))


def _xlm_roberta() -> Tokenizer:
    return unigrams(charsmap(), pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]))


def _albert() -> Tokenizer:
    parts = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKD(),
             normalizers.StripAccents(), normalizers.Lowercase()]  # fmt: skip
    return unigrams(normalizers.Sequence(parts), pre_tokenizers.Metaspace(prepend_scheme="first"))


def _llama2(*, across_words: bool = False) -> Tokenizer:
    normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return character_pairs(normalizer, None, across_words=across_words)


def _separate_marks() -> Tokenizer:
    parts = [pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation(), pre_tokenizers.Digits()]
    decomposed = normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase(), normalizers.StripAccents()])
    return word_pieces(decomposed, pre_tokenizers.Sequence(parts))


CUTTABLE: dict[str, Callable[[], Tokenizer]] = {
    "BERT": lambda: word_pieces(normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()),
    "BERT, cased": lambda: word_pieces(normalizers.BertNormalizer(lowercase=False), pre_tokenizers.BertPreTokenizer()),
    "word pieces of NFD": _separate_marks,
    "GPT-2": lambda: byte_pairs(GPT2),
    "RoBERTa": lambda: byte_pairs(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "Qwen": lambda: byte_pairs(split_bytes(QWEN), normalizers.NFC()),
    "Llama 3": lambda: byte_pairs(split_bytes(LLAMA3)),
    "o200k": lambda: byte_pairs(split_bytes(O200K)),
    "Llama 2": _llama2,
    "Gemma": lambda: character_pairs(normalizers.Replace(" ", "▁"), pre_tokenizers.Split(" ", "merged_with_previous")),
    "XLM-RoBERTa": _xlm_roberta,
    "DeBERTa": _deberta,
    "ALBERT": _albert,
}
"""Tokenizers whose texts can be cut, by the published model that they resemble."""

UNKNOWN = r"\p{L}{1,4}(?=\p{L}|$)|\s|."
"""Looks at what follows."""

WHOLE: dict[str, Callable[[], Tokenizer]] = {
    "an unknown expression": lambda: byte_pairs(split_bytes(UNKNOWN)),
    "pieces across words": lambda: _llama2(across_words=True),
}
"""Tokenizers that must read a text as a whole, at least in some places."""


@cache
def tokenizer(kind: str) -> Tokenizer:
    """The tokenizer of this name. Trained once: another training may break ties in another way."""
    return (CUTTABLE | WHOLE)[kind]()
