"""Runs vLLM in this process, in score mode. Imports vLLM, as only `core_engine` and `model` do besides.

One thread builds the engine and steps it for the worker's lifetime: OpenMP's threads belong to the thread that first
used them, and an engine that is stepped on another thread would compute on one core. Many worker threads render prompts
and pass them to that thread; vLLM batches continuously across all of them.
"""

import gc
import logging
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from vllm import EngineArgs, envs
from vllm.model_executor.models import registry
from vllm.platforms import current_platform
from vllm.usage.usage_lib import UsageContext
from vllm.v1.engine.llm_engine import LLMEngine

from shared.models import ModelSpec
from worker.engines.base import BatchScores, Cancellation, EngineDied, EngineStartError, EngineStep, ScoringBatch
from worker.engines.scoring.kinds import choose_scoring, pop_cache_bytes
from worker.engines.scoring.templates import load_template
from worker.engines.vllm.batches import AbortBatch, EngineBatch, Inbox, PendingScores
from worker.engines.vllm.core_engine import CoreEngine
from worker.engines.vllm.model import VllmModel
from worker.engines.vllm.settings import engine_settings
from worker.engines.vllm.step_loop import EngineLoop
from worker.engines.vllm.step_sizes import CPU_STEP, StepSize, gpu_step, step_size

logger = logging.getLogger(__name__)

_WARM_UP = ScoringBatch(query="warm up", documents=["one small pair", "and another"])


class VllmEngine:
    """A `ScoringEngine` on vLLM's `LLMEngine`."""

    def __init__(self, spec: ModelSpec, mark: Callable[[str], None] = lambda _: None) -> None:
        """Load the model and score once; `mark` is called after each. Raises EngineStartError with one sentence."""
        self._inbox: Inbox = queue.SimpleQueue()
        self._closed = False
        self._fail_waiting: Callable[[], None] | None = None
        self._core: CoreEngine | None = None
        self.on_step: Callable[[EngineStep], None] = lambda _: None
        """Called after each step, on the engine's thread."""
        self.on_lookup: Callable[[int, int], None] = lambda hits, misses: None
        """Called with the hits and misses of each batch in the embedding cache."""
        spec, cache_bytes = pop_cache_bytes(spec)
        template = load_template(spec.score_template)
        started: Future[LLMEngine] = Future()
        self._thread = threading.Thread(target=self._run, args=(spec, started), name="engine", daemon=True)
        self._thread.start()
        try:
            model = VllmModel(spec, started.result(), template)
            self._scoring = choose_scoring(spec, model, cache_bytes, self._report_lookup)
            self.scale = self._scoring.scale
            self.dtype = model.dtype
            mark("load")
            self.score(_WARM_UP, Cancellation())
            mark("warm-up")
        except EngineStartError:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise EngineStartError(f"model {spec.name!r} could not be loaded: {_one_line(error)}") from error

    @property
    def cached_tokens(self) -> int:
        """How many tokens of prompts were not computed, because the engine had computed the same beginning before."""
        return self._core.cached_tokens if self._core else 0

    def score(self, batch: ScoringBatch, cancellation: Cancellation) -> BatchScores:
        return self.begin(batch, cancellation).result()

    def begin(self, batch: ScoringBatch, cancellation: Cancellation) -> PendingScores:
        """Render the batch's prompts and pass them to the engine. Raises EngineError."""
        prepared = self._scoring.prepare(batch)
        if self._closed:
            raise EngineDied("the engine is closed")
        work = EngineBatch(prepared.inputs, batch.priority)
        if prepared.inputs:
            self._inbox.put(work)
            cancellation.on_cancel(lambda: self._inbox.put(AbortBatch(work)))
        else:
            work.done.set_result([])
        if self._fail_waiting is not None:
            # It arrived after the waiting batches had been failed.
            self._fail_waiting()
        return PendingScores(work, prepared)

    def close(self) -> None:
        self._closed = True
        self._inbox.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=30)

    def _report_step(self, step: EngineStep) -> None:
        """Call `on_step` without a reference to what it was when the loop began."""
        self.on_step(step)

    def _report_lookup(self, hits: int, misses: int) -> None:
        self.on_lookup(hits, misses)

    def _run(self, spec: ModelSpec, started: Future[LLMEngine]) -> None:
        """The engine's thread: build the engine, then step it until it is closed or breaks."""
        try:
            _inspect_models_here()
            engine = LLMEngine.from_engine_args(_engine_args(spec))
        except BaseException as error:
            started.set_exception(error)
            return
        started.set_result(engine)
        self._core = core = CoreEngine(engine)
        loop = EngineLoop(
            core, self._inbox, _step_size(engine), free_memory=partial(_free_memory, engine), on_step=self._report_step
        )
        try:
            loop.run()
            reason = EngineDied("the engine is closed")
        except Exception as error:
            logger.exception("the engine broke")
            reason = EngineDied(f"the engine broke: {_one_line(error)}")
        self._closed = True
        loop.fail_all(reason)
        self._fail_waiting = partial(loop.fail_all, reason)
        self._fail_waiting()
        engine.renderer.shutdown()
        engine.engine_core.shutdown()


def holds_device() -> bool:
    """Whether this process has a GPU context."""
    # Imported late: vLLM must be imported before torch.
    import torch

    return bool(torch.cuda.is_initialized())


def _inspect_models_here() -> None:
    """Make vLLM inspect a model's class in this process instead of another one, which would import all of vLLM.

    The other process takes eight seconds where vLLM's cache is empty, as in every new container. vLLM uses it so that
    CUDA is not initialized before a fork, but nothing is forked while the engine is in this process.
    """
    if not envs.VLLM_ENABLE_V1_MULTIPROCESSING and hasattr(registry, "_run_in_subprocess"):
        registry._run_in_subprocess = lambda inspect: inspect()


def _engine_args(spec: ModelSpec) -> EngineArgs:
    on_cpu = current_platform.is_cpu()
    settings = engine_settings(spec, on_cpu=on_cpu)
    step = CPU_STEP if on_cpu else gpu_step(_device_memory())
    cores = f" on cores {os.environ['VLLM_CPU_OMP_THREADS_BIND']}" if on_cpu else ""
    chosen = ", ".join(f"{name}={value}" for name, value in settings.items() if value is not None)
    logger.info("vLLM on %s%s: %s", current_platform.device_type, cores, chosen)
    try:
        arguments = EngineArgs(**settings)
    except TypeError as error:
        raise EngineStartError(f"model {spec.name!r}: engine_args: {_one_line(error)}") from error
    # Replaces vLLM's table of default steps instead of setting them: vLLM then fits a default to the model's length.
    context = UsageContext.ENGINE_CONTEXT
    arguments.get_batch_defaults = lambda world_size: ({context: step.tokens}, {context: step.prompts})
    return arguments


def _device_memory() -> int:
    """The memory of the GPU in bytes; 0 when vLLM cannot tell, which selects the smallest steps."""
    try:
        return int(current_platform.get_device_total_memory())
    except Exception as error:
        logger.warning("the memory of the GPU is unknown", extra={"error": _one_line(error)})
        return 0


def _step_size(engine: LLMEngine) -> StepSize:
    scheduler = engine.vllm_config.scheduler_config
    step = step_size(scheduler.max_num_batched_tokens, scheduler.max_num_seqs, on_cpu=current_platform.is_cpu())
    logger.info(
        "steps of the engine",
        extra={
            "dtype": str(engine.model_config.dtype),
            "tokens": step.tokens,
            "prompts": step.prompts,
            "shared_tokens": step.shared_tokens,
        },
    )
    return step


def _free_memory(engine: LLMEngine) -> None:
    """Release what a failed step left behind. Raises RuntimeError when prompts remain in the engine."""
    # vLLM marks blocks of the prefix cache as computed before the step that computes them.
    if not engine.reset_prefix_cache():
        raise RuntimeError("the engine still holds prompts after a step that ran out of memory")
    gc.collect()
    # Imported late: vLLM must be imported before torch.
    import torch

    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__
