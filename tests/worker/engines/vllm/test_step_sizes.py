import pytest

from worker.engines.vllm.step_sizes import CPU_STEP, gpu_step, step_size

GIB = 1024**3


@pytest.mark.parametrize(
    ("card", "gib", "tokens", "prompts"),
    [
        ("H200", 139.8, 16_384, 1024),
        ("H100", 79.6, 16_384, 1024),
        ("A100", 79.2, 16_384, 1024),
        ("L40S", 44.4, 8192, 512),
        ("L4", 22.0, 8192, 512),
        ("T4", 14.6, 4096, 256),
        ("unknown", 0, 4096, 256),
    ],
)
def test_a_gpu_with_more_memory_takes_larger_steps(card: str, gib: float, tokens: int, prompts: int) -> None:
    step = gpu_step(int(gib * GIB))
    assert (step.tokens, step.prompts) == (tokens, prompts), card


def test_beside_interactive_work_a_gpus_background_steps_are_a_quarter_as_large() -> None:
    assert gpu_step(80 * GIB).shared_tokens == 4096
    assert step_size(tokens=3, prompts=1, on_cpu=False).shared_tokens == 1


def test_a_cpus_background_steps_have_one_size() -> None:
    assert (CPU_STEP.tokens, CPU_STEP.prompts, CPU_STEP.shared_tokens) == (2048, 64, 2048)
