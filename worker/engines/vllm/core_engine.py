"""Adds prompts to vLLM's engine core and steps it, without `LLMEngine`'s processing of requests and outputs.

For each prompt `LLMEngine` validates inputs, copies parameters, and keeps state for detokenizing and statistics. A
prompt of token ids whose parameters are verified and shared needs none of it.
"""

import time
from collections.abc import Sequence

from vllm import PoolingParams
from vllm.outputs import PoolingOutput, PoolingRequestOutput, RequestError
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.engine.llm_engine import LLMEngine

_NO_OUTPUT = RequestError(code="no_output", message="The engine returned no output.", retryable=False)


class CoreEngine:
    """A `SteppingEngine`. Used by one thread."""

    def __init__(self, engine: LLMEngine) -> None:
        self._core = engine.engine_core
        self._max_tokens: int = engine.model_config.max_model_len
        self._prompts: dict[str, list[int]] = {}
        self.cached_tokens = 0
        """How many tokens of prompts were not computed, because the engine had computed the same beginning before."""

    def add_request(self, request_id: str, prompt: list[int], params: PoolingParams, *, priority: int) -> None:
        """Add a prompt of token ids. `params` must be verified, and may be shared between prompts.

        Raises ValueError for an empty prompt and for one longer than the model's limit.
        """
        if not 0 < len(prompt) <= self._max_tokens:
            raise ValueError(f"a prompt must have 1 to {self._max_tokens} tokens, but has {len(prompt)}")
        request = EngineCoreRequest(
            request_id=request_id,
            prompt_token_ids=prompt,
            mm_features=None,
            sampling_params=None,
            pooling_params=params,
            arrival_time=time.time(),
            lora_request=None,
            cache_salt=None,
            data_parallel_rank=None,
            priority=priority,
        )
        self._core.add_request(request)
        self._prompts[request_id] = prompt

    def abort_request(self, request_ids: list[str]) -> None:
        for request_id in request_ids:
            self._prompts.pop(request_id, None)
        self._core.abort_requests(request_ids)

    def step(self) -> Sequence[PoolingRequestOutput[PoolingOutput]]:
        finished = []
        for output in self._core.get_output().outputs:
            # None: the prompt was aborted during the step.
            if (prompt := self._prompts.pop(output.request_id, None)) is not None:
                pooled = output.pooling_output
                cached = output.prefill_stats.num_cached_tokens if output.prefill_stats else 0
                self.cached_tokens += cached
                finished.append(
                    PoolingRequestOutput(
                        request_id=output.request_id,
                        outputs=PoolingOutput(data=pooled),
                        prompt_token_ids=prompt,
                        num_cached_tokens=cached,
                        finished=True,
                        error=_NO_OUTPUT if pooled is None else None,
                    )
                )
        return finished
