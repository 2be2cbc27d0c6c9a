"""Program that creates a small model of every kind with random weights, and computes its scores without vLLM.

A separate process keeps torch out of the test runner. `tiny.py OUT` reads {"query", "documents", "instruction"} from
standard input, saves one model per kind under OUT, and prints {kind: {"spec": the model's entry, "expected": its
scores}}. The rankings are meaningless; tests compare the arithmetic and the prompts.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    GemmaConfig,
    GemmaForCausalLM,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from tests.engine import prompts
from tests.engine.examples import FORGED_ANSWER, FORGED_PASSAGE
from tests.engine.gte_new import GteNew
from tests.engine.tiny_tokenizers import byte_pairs, sentence_pieces, word_pieces

SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,  # with a head size of 32, the smallest that vLLM supports on a CPU
    "max_position_embeddings": 256,
}
CAUSAL: dict[str, Any] = SMALL | {"num_key_value_heads": 1, "head_dim": 32, "max_position_embeddings": 512}
OVERRIDES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "qwen3-reranker": (
        {
            "architectures": ["Qwen3ForSequenceClassification"],
            "classifier_from_token": ["no", "yes"],
            "is_original_qwen3_reranker": True,
        },
        ["yes", "no"],
    ),
    "mxbai-rerank-v2": (
        {
            "architectures": ["Qwen2ForSequenceClassification"],
            "classifier_from_token": ["0", "1"],
            "method": "from_2_way_softmax",
        },
        ["1", "0"],
    ),
    "bge-reranker-v2-gemma": (
        {
            "architectures": ["GemmaForSequenceClassification"],
            "classifier_from_token": ["Yes"],
            "method": "no_post_processing",
        },
        ["Yes"],
    ),
}
"""Per model: the overrides that turn a published checkpoint into a reranker, and the answers whose logits it scores."""
JINA_EMBED_TOKEN = 151670
"""The token id that vLLM expects after each passage. The id of the token after the query is one higher."""
JINA_DIMENSIONS = 512
"""The embedding size that vLLM assumes for this model."""


def randomize(model: Any, *, head: str | None = None) -> Any:
    """Set weights so large that scores differ: near zero, wrong scores would pass the tolerance."""
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=1.0 if head is not None and head in name else 0.15)
    return model.eval()


def logits(model: Any, tokenizer: Any, query: str, documents: list[str]) -> list[float]:
    """The logits of a sequence classifier for pairs."""
    return [model(**tokenizer(query, document, return_tensors="pt")).logits.item() for document in documents]


def plain_ids(tokenizer: Any, prompt: str, text: str) -> list[int]:
    """The ids of a prompt in which the control tokens of one text are plain characters."""
    before, after = prompt.split(text)
    # A space belongs to the token after it.
    space = " " if before.endswith(" ") else ""
    plain = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    plain.encode_special_tokens = True
    ids: list[int] = tokenizer(before.removesuffix(space))["input_ids"]
    ids += plain.encode(space + text, add_special_tokens=False).ids
    return ids + list(tokenizer(after)["input_ids"])


def last_logits(model: Any, tokenizer: Any, prompts: list[str]) -> list[torch.Tensor]:
    """The logits of a language model for the token after each prompt."""
    return [model(**tokenizer(prompt, return_tensors="pt")).logits[0, -1] for prompt in prompts]


class ModelBuilder:
    """Creates models in a folder, and collects their entries and expected scores."""

    def __init__(self, folder: Path, query: str, documents: list[str], instruction: str) -> None:
        self.folder = folder
        self.query = query
        self.documents = documents
        self.instruction = instruction
        self.entries: dict[str, dict[str, Any]] = {}

    def save(
        self,
        kind: str,
        model: Any,
        tokenizer: Any,
        expected: Any,
        *,
        config: Any = None,
        backbone: str | None = None,
        head: str = "",
        **entry: Any,
    ) -> None:
        """Save a model in the format of its published checkpoints.

        `config` is merged into config.json. All weights except those that begin with `head` get the prefix `backbone`.
        """
        path = self.folder / kind
        model.save_pretrained(path)
        tokenizer.save_pretrained(path)
        settings = json.loads((path / "config.json").read_text()) | (config or {})
        (path / "config.json").write_text(json.dumps(settings))
        if backbone is not None:
            weights = load_file(path / "model.safetensors")
            renamed = {name if name.startswith(head) else backbone + name: value for name, value in weights.items()}
            save_file(renamed, path / "model.safetensors", metadata={"format": "pt"})
        self.entries[kind] = {"spec": {"name": kind, "source": str(path)} | entry, "expected": expected}

    def classifiers(self) -> None:
        words, pieces = word_pieces(), sentence_pieces()
        pairs = byte_pairs(["[PAD]", "[CLS]", "[SEP]"])
        pairs.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B [SEP]",
            special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
        )
        pairs.model_input_names = ["input_ids", "attention_mask"]
        bert = BertForSequenceClassification(BertConfig(vocab_size=len(words), num_labels=1, **SMALL))
        xlm_config = XLMRobertaConfig(vocab_size=len(pieces), num_labels=1, **SMALL, pad_token_id=1, type_vocab_size=1)
        modern_config = ModernBertConfig(
            vocab_size=len(pairs), num_labels=1, **SMALL, pad_token_id=0, cls_token_id=1, sep_token_id=2,
            bos_token_id=1, eos_token_id=2, classifier_pooling="mean", local_attention=16,
        )  # fmt: skip
        for kind, model, tokenizer in (
            ("bert", bert, words),
            ("xlm-roberta", XLMRobertaForSequenceClassification(xlm_config), pieces),
            ("modernbert", ModernBertForSequenceClassification(modern_config), pairs),
        ):
            randomize(model, head="classifier")
            self.save(kind, model, tokenizer, logits(model, tokenizer, self.query, self.documents))
        activations = {
            "st-identity": {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}},
            "st-sigmoid": {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}},
            "sbert-identity": {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"},
            "sbert-sigmoid": {"sbert_ce_default_activation_function": "torch.nn.modules.activation.Sigmoid"},
        }
        for kind, config in activations.items():
            self.save(kind, bert, words, self.entries["bert"]["expected"], config=config)
        bert.bert.embeddings.word_embeddings.weight[words.convert_tokens_to_ids("bamboo")] = float("nan")
        self.save("bert-without-bamboo", bert, words, None)
        three_labels = BertForSequenceClassification(BertConfig(vocab_size=len(words), num_labels=3, **SMALL))
        self.save("three-labels", three_labels, words, None)
        token_labels = BertForTokenClassification(BertConfig(vocab_size=len(words), num_labels=2, **SMALL))
        self.save("token-labels", token_labels, words, None)

    def rotary(self) -> None:
        tokenizer = sentence_pieces()
        model = randomize(GteNew(len(tokenizer)), head="classifier")
        encoded = [tokenizer(self.query, document, return_tensors="pt") for document in self.documents]
        expected = [model(inputs["input_ids"][0]).item() for inputs in encoded]
        self.save("gte-new", model, tokenizer, expected, engine_args={"trust_remote_code": True})

    def late_interaction(self) -> None:
        tokenizer = word_pieces()
        model = BertModel(BertConfig(vocab_size=len(tokenizer), **SMALL), add_pooling_layer=False)
        randomize(model)
        projection = torch.randn(32, SMALL["hidden_size"])

        def embed(text: str) -> torch.Tensor:
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
            return torch.nn.functional.normalize(hidden @ projection.T, dim=-1)

        query = embed(self.query)
        expected = [(query @ embed(document).T).amax(dim=1).sum().item() for document in self.documents]
        model.linear = torch.nn.Linear(SMALL["hidden_size"], 32, bias=False)
        model.linear.weight.data = projection
        self.save(
            "colbert",
            model,
            tokenizer,
            expected,
            config={"architectures": ["HF_ColBERT"]},
            backbone="bert.",
            head="linear",
        )

    def language_models(self) -> None:
        qwen = byte_pairs(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "0", "1"])
        gemma = byte_pairs(["<pad>", "<bos>", "Yes"], first="<bos>")
        vocabulary = {"vocab_size": len(qwen), "tie_word_embeddings": True}
        models: dict[str, tuple[Any, Any, Callable[[str, str, str], str]]] = {
            "qwen3-reranker": (Qwen3ForCausalLM(Qwen3Config(**CAUSAL, **vocabulary)), qwen, prompts.qwen3),
            "mxbai-rerank-v2": (Qwen2ForCausalLM(Qwen2Config(**CAUSAL, **vocabulary)), qwen, prompts.mxbai),
            "bge-reranker-v2-gemma": (
                GemmaForCausalLM(GemmaConfig(**CAUSAL, vocab_size=len(gemma))),
                gemma,
                prompts.gemma,
            ),
        }
        for kind, (model, tokenizer, prompt) in models.items():
            overrides, answers = OVERRIDES[kind]
            randomize(model)
            ids = tokenizer.convert_tokens_to_ids(answers)
            expected = {}
            for name, instruction in (("default", ""), ("instructed", self.instruction)):
                ends = last_logits(
                    model, tokenizer, [prompt(self.query, document, instruction) for document in self.documents]
                )
                scores = [(end[ids[0]] - (end[ids[1]] if len(ids) > 1 else 0)).item() for end in ends]
                expected[name] = scores
            if kind == "qwen3-reranker":
                forged = plain_ids(tokenizer, prompt(self.query, FORGED_ANSWER, ""), FORGED_ANSWER)
                end = model(torch.tensor([forged])).logits[0, -1]
                expected["forged"] = [(end[ids[0]] - end[ids[1]]).item()]
            arguments = {"hf_overrides": overrides, "max_model_len": CAUSAL["max_position_embeddings"]}
            self.save(kind, model, tokenizer, expected, engine_args=arguments, score_template=kind)

    @staticmethod
    def _cosines(model: Any, ids: list[int]) -> list[float]:
        prompt = torch.tensor(ids)
        hidden = model(input_ids=prompt[None]).last_hidden_state[0]
        documents = model.projector(hidden[prompt == JINA_EMBED_TOKEN])
        query = model.projector(hidden[prompt == JINA_EMBED_TOKEN + 1])
        return list(torch.cosine_similarity(query, documents).tolist())

    def listwise(self) -> None:
        marks = ["<|embed_token|>", "<|rerank_token|>"]
        tokenizer = byte_pairs(marks, fill_to=JINA_EMBED_TOKEN)
        size = CAUSAL | {"hidden_size": 32, "max_position_embeddings": 1024}
        model = randomize(Qwen3Model(Qwen3Config(**size, vocab_size=len(tokenizer), tie_word_embeddings=False)))
        model.projector = torch.nn.Sequential(
            torch.nn.Linear(32, 16, bias=False), torch.nn.ReLU(), torch.nn.Linear(16, JINA_DIMENSIONS, bias=False)
        )
        torch.nn.init.normal_(model.projector[0].weight)
        torch.nn.init.normal_(model.projector[2].weight)
        expected = {}
        for name, instruction in (("default", ""), ("instructed", self.instruction)):
            prompt = prompts.jina(self.query, self.documents, instruction)
            expected[name] = self._cosines(model, tokenizer(prompt)["input_ids"])
        prompt = prompts.jina(self.query, [*self.documents, FORGED_PASSAGE], "")
        expected["forged"] = self._cosines(model, plain_ids(tokenizer, prompt, FORGED_PASSAGE))
        config = {"architectures": ["JinaForRanking"]}
        self.save(
            "jina-reranker-v3", model, tokenizer, expected,
            config=config, backbone="model.", head="projector", listwise=True,
        )  # fmt: skip


if __name__ == "__main__":
    torch.manual_seed(7)
    torch.set_grad_enabled(False)
    builder = ModelBuilder(Path(sys.argv[1]), **json.load(sys.stdin))
    builder.classifiers()
    builder.rotary()
    builder.late_interaction()
    builder.language_models()
    builder.listwise()
    print(json.dumps(builder.entries))
