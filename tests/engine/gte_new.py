"""Reference implementation of the GTE multilingual rerankers' encoder: a BERT with rotary positions.

transformers has no class for it. The weights have the names of the published checkpoints.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

# vLLM recognizes the configuration by the name of this class, which is part of the checkpoint.
CONFIGURATION = """from transformers import PretrainedConfig


class NewConfig(PretrainedConfig):
    model_type = "new"
"""
BASE = 10_000.0


class Attention(nn.Module):  # type: ignore[misc]
    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv_proj = nn.Linear(size, 3 * size)
        self.o_proj = nn.Linear(size, size)

    def forward(self, hidden: Any) -> Any:
        length, size = hidden.shape
        query, key, value = (
            part.view(length, self.heads, -1).transpose(0, 1) for part in self.qkv_proj(hidden).split(size, dim=-1)
        )
        mixed = functional.scaled_dot_product_attention(rotated(query), rotated(key), value)
        return self.o_proj(mixed.transpose(0, 1).reshape(length, size))


class GatedLayers(nn.Module):  # type: ignore[misc]
    def __init__(self, size: int, inner: int) -> None:
        super().__init__()
        self.up_gate_proj = nn.Linear(size, 2 * inner, bias=False)
        self.down_proj = nn.Linear(inner, size)

    def forward(self, hidden: Any) -> Any:
        up, gate = self.up_gate_proj(hidden).chunk(2, dim=-1)
        return self.down_proj(functional.gelu(gate) * up)


class Block(nn.Module):  # type: ignore[misc]
    def __init__(self, size: int, inner: int, heads: int) -> None:
        super().__init__()
        self.attention = Attention(size, heads)
        self.mlp = GatedLayers(size, inner)
        self.attn_ln = nn.LayerNorm(size)
        self.mlp_ln = nn.LayerNorm(size)

    def forward(self, hidden: Any) -> Any:
        hidden = self.attn_ln(hidden + self.attention(hidden))
        return self.mlp_ln(hidden + self.mlp(hidden))


class GteNew(nn.Module):  # type: ignore[misc]
    """A classifier with one label. Takes one sequence of token ids and returns its logit."""

    def __init__(self, vocabulary: int, *, size: int = 64, inner: int = 96, heads: int = 2, blocks: int = 2) -> None:
        super().__init__()
        self.settings = {
            "architectures": ["GteNewForSequenceClassification"],
            "auto_map": {"AutoConfig": "configuration.NewConfig"},
            "hidden_act": "gelu",
            "hidden_size": size,
            "id2label": {"0": "LABEL_0"},
            "intermediate_size": inner,
            "layer_norm_eps": 1e-5,
            "max_position_embeddings": 256,
            "model_type": "new",
            "num_attention_heads": heads,
            "num_hidden_layers": blocks,
            "pad_token_id": 1,
            "position_embedding_type": "rope",
            "rope_theta": BASE,
            "torch_dtype": "float32",
            "type_vocab_size": 1,
            "vocab_size": vocabulary,
        }
        self.new = nn.Module()
        self.new.embeddings = nn.Module()
        self.new.embeddings.word_embeddings = nn.Embedding(vocabulary, size)
        self.new.embeddings.token_type_embeddings = nn.Embedding(1, size)
        self.new.embeddings.LayerNorm = nn.LayerNorm(size)
        self.new.encoder = nn.Module()
        self.new.encoder.layer = nn.ModuleList([Block(size, inner, heads) for _ in range(blocks)])
        self.new.pooler = nn.Module()
        self.new.pooler.dense = nn.Linear(size, size)
        self.classifier = nn.Linear(size, 1)

    def forward(self, ids: Any) -> Any:
        embeddings = self.new.embeddings
        hidden = embeddings.LayerNorm(embeddings.word_embeddings(ids) + embeddings.token_type_embeddings.weight[0])
        for block in self.new.encoder.layer:
            hidden = block(hidden)
        return self.classifier(torch.tanh(self.new.pooler.dense(hidden[0])))

    def save_pretrained(self, path: Path) -> None:
        path.mkdir()
        (path / "config.json").write_text(json.dumps(self.settings))
        (path / "configuration.py").write_text(CONFIGURATION)
        weights = {name: weight.contiguous() for name, weight in self.state_dict().items()}
        save_file(weights, path / "model.safetensors", metadata={"format": "pt"})


def rotated(heads: Any) -> Any:
    """Apply rotary position embedding to a tensor of [heads, positions, numbers]."""
    _, positions, numbers = heads.shape
    frequencies = BASE ** (-torch.arange(0, numbers, 2) / numbers)
    angles = torch.outer(torch.arange(positions), frequencies)
    first, second = heads.chunk(2, dim=-1)
    cosine, sine = angles.cos(), angles.sin()
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)
