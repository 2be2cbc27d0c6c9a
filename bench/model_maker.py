"""Program that creates a cross-encoder with seeded random weights: `python -m bench.model_maker SHAPE FOLDER`.

Its scores mean nothing, but cost as much as those of a trained model. Prints {"parameters", "flops_per_token",
"flops_per_token_squared"} as JSON: a pair of n tokens costs n times the first number of floating-point operations plus
n * n times the second.
"""

import json
import re
import sys
from itertools import product
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from bench.models import bundled

XLM_ROBERTA_TOKENS = 8192
_XLM_ROBERTA: dict[str, dict[str, Any]] = {
    # The shape of bge-reranker-v2-m3, which is XLM-RoBERTa large.
    "xlm-roberta-large": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "vocab_size": 250_002,
    },
    "xlm-roberta-small": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 128,
        "vocab_size": 4096,
    },
}
_QWEN3 = {
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "intermediate_size": 1024,
    "max_position_embeddings": 1024,
}
_ONE_LAYER = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 64}
_IN_LAYER = r"\.layers?\.\d"
_SYLLABLES = [
    start + vowel + end
    for start, vowel, end in product("bcdfglmnprst", ("a", "e", "i", "o", "u", "ai"), ("n", "r", "s", "t", "nd", "rk"))
]
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def main(shape: str, folder: Path) -> None:
    torch.manual_seed(7)
    if shape == "one-layer":
        model = one_layer(folder)
    else:
        model = qwen3(folder) if shape == "qwen3" else xlm_roberta(_XLM_ROBERTA[shape], folder)
    layers = sum(weights.numel() for name, weights in model.named_parameters() if re.search(_IN_LAYER, name))
    config = model.config
    print(
        json.dumps(
            {
                "parameters": sum(weights.numel() for weights in model.parameters()),
                "flops_per_token": 2 * layers,
                "flops_per_token_squared": 4 * config.hidden_size * config.num_hidden_layers,
            }
        )
    )


def one_layer(folder: Path) -> Any:
    """Save a BERT so small that only the work around the model is left. It has the bundled model's tokenizer."""
    config = AutoConfig.from_pretrained(bundled(), num_labels=1, **_ONE_LAYER)
    model = BertForSequenceClassification(config)
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(bundled(), model_max_length=config.max_position_embeddings)
    tokenizer.save_pretrained(folder)
    return model


def qwen3(folder: Path) -> Any:
    """Save a small Qwen3 language model. It has the bundled model's tokenizer, which knows the words "yes" and "no"."""
    # BERT's class returns token types, which Qwen3 does not take.
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=AutoTokenizer.from_pretrained(bundled()).backend_tokenizer,
        pad_token="[PAD]",
        model_max_length=_QWEN3["max_position_embeddings"],
        model_input_names=["input_ids", "attention_mask"],
    )
    model = Qwen3ForCausalLM(Qwen3Config(**_QWEN3, vocab_size=len(tokenizer), tie_word_embeddings=True))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def xlm_roberta(shape: dict[str, Any], folder: Path) -> Any:
    """Save an XLM-RoBERTa in bfloat16, with a Unigram tokenizer that has one piece for each of its words."""
    tokenizer = unigram(shape["vocab_size"])
    config = XLMRobertaConfig(
        **shape,
        max_position_embeddings=XLM_ROBERTA_TOKENS + 2,
        type_vocab_size=1,
        num_labels=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = XLMRobertaForSequenceClassification(config)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def unigram(size: int) -> PreTrainedTokenizerFast:
    """A tokenizer of XLM-RoBERTa's kind and special tokens, with `size` pieces."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    letters = ["▁", *_LETTERS]
    words = ("▁" + first + second for first, second in product(_SYLLABLES, repeat=2))
    count = size - len(special) - len(letters) - 1
    vocabulary = [(token, 0.0) for token in special] + [(letter, -20.0) for letter in letters]
    vocabulary += [(word, -10.0) for word, _ in zip(words, range(count), strict=False)]
    # XLM-RoBERTa's vocabulary has more words than there are pairs of syllables.
    vocabulary += [(f"▁unused{number}", -30.0) for number in range(size - 1 - len(vocabulary))]
    tokenizer = Tokenizer(models.Unigram([*vocabulary, ("<mask>", 0.0)], unk_id=3))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        mask_token="<mask>",
        model_max_length=XLM_ROBERTA_TOKENS,
        model_input_names=["input_ids", "attention_mask"],
    )


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
