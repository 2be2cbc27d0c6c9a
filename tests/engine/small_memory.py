"""Makes the steps of a real vLLM engine run out of memory on purpose. For programs that run vLLM."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def small_memory(tokens: int, failures: int | None) -> Iterator[list[int]]:
    """Let steps with more than `tokens` tokens fail, at most `failures` times. Yields the tokens of failed steps.

    The error comes from inside vLLM's model runner, where a real one does: the scheduler has then already counted the
    step's prompts as computed.
    """
    import torch
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    forward = GPUModelRunner._model_forward
    failed: list[int] = []

    def limited(runner: Any, input_ids: torch.Tensor, *arguments: Any, **named: Any) -> Any:
        if len(input_ids) > tokens and (failures is None or len(failed) < failures):
            failed.append(len(input_ids))
            raise torch.OutOfMemoryError(f"no memory for a step of {len(input_ids)} tokens")
        return forward(runner, input_ids, *arguments, **named)

    GPUModelRunner._model_forward = limited
    try:
        yield failed
    finally:
        GPUModelRunner._model_forward = forward
