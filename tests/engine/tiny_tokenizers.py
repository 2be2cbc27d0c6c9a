"""Small tokenizers of the three families that rerankers use, trained on a few sentences."""

import json

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "What is a panda? The giant panda is a bear species endemic to China. It eats bamboo, and rests a lot.",
    "A red panda is no bear at all; hi, yes no 0 1 Yes! Sort the passages by relevance: query, document, passage.",
    "Given a web search query, retrieve relevant passages that answer the query, or judge whether they do.",
    "Ünïcödé, 漢字 and other letters are read as well.",
]


def word_pieces() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=300, special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def sentence_pieces() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=special, unk_token="<unk>")
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_input_names=["input_ids", "attention_mask"],
    )


def byte_pairs(special: list[str], *, first: str | None = None, fill_to: int = 0) -> PreTrainedTokenizerFast:
    """A language model's tokenizer. `first` begins every prompt; `fill_to` is the first id of the `special` tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trained = [] if fill_to else special
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=400, special_tokens=trained, initial_alphabet=alphabet)
    )
    if fill_to:
        parts = json.loads(tokenizer.to_str())
        vocabulary = parts["model"]["vocab"]
        vocabulary |= {f"<unused {number}>": number for number in range(len(vocabulary), fill_to)}
        tokenizer = Tokenizer.from_str(json.dumps(parts))
        tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    tokenizer.decoder = decoders.ByteLevel()
    if first is not None:
        marks = [(first, tokenizer.token_to_id(first))]
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{first} $A", special_tokens=marks)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=special[0], eos_token=special[0])
