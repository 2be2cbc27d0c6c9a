"""Program that measures ONNX Runtime with dynamic int8 quantization, without a server.

Exports the model with PyTorch, fuses its operators with ONNX Runtime's own optimizer, and quantizes the weights to
int8. The result stays in the order's `folder`, so that later calls find it.
"""

import json
import sys
from pathlib import Path

import onnx
import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers.optimizer import optimize_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from bench.peers.bare_loop import measure

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def main() -> None:
    order = json.load(sys.stdin)
    quantized = Path(order["folder"]) / "int8.onnx"
    if not quantized.exists():
        export(order["model"], quantized)
    session = onnxruntime.InferenceSession(str(quantized), providers=["CPUExecutionProvider"])
    tokenizer = AutoTokenizer.from_pretrained(order["model"])

    def score(pairs: list[tuple[str, str]]) -> list[float]:
        queries, documents = zip(*pairs, strict=True)
        tokens = tokenizer(list(queries), list(documents), padding=True, truncation=True, return_tensors="np")
        (logits,) = session.run(None, {name: tokens[name] for name in INPUTS})
        return [float(logit) for logit in logits[:, 0]]

    measure(order, score)


def export(model: str, quantized: Path) -> None:
    """Write the quantized model."""
    exact, fused = quantized.with_name("float32.onnx"), quantized.with_name("fused.onnx")
    network = AutoModelForSequenceClassification.from_pretrained(model, attn_implementation="eager").eval()
    tokens = AutoTokenizer.from_pretrained(model)(["a", "b"], ["c d", "e"], padding=True, return_tensors="pt")
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    torch.onnx.export(
        network,
        kwargs={name: tokens[name] for name in INPUTS},
        f=str(exact),
        input_names=list(INPUTS),
        output_names=["logits"],
        dynamic_shapes={name: {0: batch, 1: length} for name in INPUTS},
        external_data=False,
        verbose=False,
    )
    config = network.config
    optimize_model(
        str(exact), model_type="bert", num_heads=config.num_attention_heads, hidden_size=config.hidden_size
    ).save_model_to_file(str(fused))
    # The optimizer's own operators have no shape inference, so the quantizer has to be told the type.
    types = {"DefaultTensorType": onnx.TensorProto.FLOAT}
    quantize_dynamic(fused, quantized, weight_type=QuantType.QInt8, extra_options=types)


if __name__ == "__main__":
    main()
