"""How much the engine computes in one step, by device. Pure functions; imports nothing of vLLM."""

from dataclasses import dataclass

_GIB = 1024**3
_TOKENS_PER_PROMPT = 16
"""A short query, a short document and their separators: with longer ones the limit of tokens ends a step."""
_SHARE_BESIDE_INTERACTIVE = 4


@dataclass(frozen=True, slots=True)
class StepSize:
    """The most tokens and prompts in one step.

    `shared_tokens`: the most tokens of background work in a step while interactive calls arrive.
    """

    tokens: int
    prompts: int
    shared_tokens: int


def step_size(tokens: int, prompts: int, *, on_cpu: bool) -> StepSize:
    """The step with these limits. On a CPU, smaller background steps would only slow batch work down."""
    return StepSize(tokens, prompts, tokens if on_cpu else max(1, tokens // _SHARE_BESIDE_INTERACTIVE))


CPU_STEP = step_size(2048, 64, on_cpu=True)
"""Measured (bench/README.md): larger steps are no faster, and interactive work waits longer for one."""


def gpu_step(memory_bytes: int) -> StepSize:
    """The default step of a GPU with this much memory.

    A step must be large enough to keep the card busy, and short, because interactive calls wait for the current one.
    Memory stands for speed here: cards with more of it compute faster. An H100 (80 GB) has arithmetic for about 5,000
    pairs of 117 tokens a second through a model of 568M parameters: 16,384 tokens take 28 ms, 4,096 take 7 ms. An L4
    (24 GB) has about a tenth of that, a T4 (16 GB) less. Computed from the cards' arithmetic, not measured.
    """
    if memory_bytes >= 70 * _GIB:
        tokens = 16_384
    elif memory_bytes >= 20 * _GIB:
        tokens = 8192
    else:
        tokens = 4096
    return step_size(tokens, tokens // _TOKENS_PER_PROMPT, on_cpu=False)
