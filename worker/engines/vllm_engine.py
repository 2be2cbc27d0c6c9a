"""vLLM in this process, in score mode. The only file that may import vLLM.

One thread builds the engine and steps it for as long as the worker lives: OpenMP's threads belong to the thread
that first used them, so an engine that is built here and stepped there would compute on one core. Many worker
threads render their pairs (with vLLM's own scoring processors) and hand them over; vLLM batches continuously
across all of them.
"""

import logging
import math
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from vllm import EngineArgs, PoolingParams
from vllm.entrypoints.pooling.factories import init_pooling_io_processors
from vllm.entrypoints.pooling.scoring.utils import truncate_text_to_tokens
from vllm.entrypoints.pooling.typing import OfflineOutputsContext, OfflineScoringInputsContext
from vllm.platforms import current_platform
from vllm.renderers.chat_utils import ChatTemplateConfig
from vllm.tasks import SCORE_TYPE_MAP
from vllm.v1.engine.llm_engine import LLMEngine

from shared.contracts import ScoreScale
from shared.models import ModelSpec
from worker.engines.base import BatchScores, Cancellation, EngineDied, EngineStartError, ScoringBatch
from worker.engines.loop import Abort, EngineLoop, Inbox, Work
from worker.engines.vllm_settings import engine_settings

logger = logging.getLogger(__name__)

_WARM_UP = ScoringBatch(query="warm up", documents=["one small pair", "and another"])


class VllmEngine:
    """A `ScoringEngine` on vLLM's `LLMEngine`. Cross-encoders give logits, bi-encoders cosines."""

    def __init__(self, spec: ModelSpec) -> None:
        """Load the model and score once. Raises EngineStartError with one clear sentence."""
        self._name = spec.name
        self._inbox: Inbox = queue.SimpleQueue()
        # vLLM's tokenizer keeps the truncation it was last asked for: one caller at a time.
        self._rendering = threading.Lock()
        self._closed = False
        started: Future[LLMEngine] = Future()
        self._thread = threading.Thread(target=self._run, args=(spec, started), name="engine", daemon=True)
        self._thread.start()
        try:
            self._attach(started.result())
            self.score(_WARM_UP, Cancellation())
        except EngineStartError:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise EngineStartError(f"model {spec.name!r} could not be loaded: {_one_line(error)}") from error

    def _attach(self, engine: LLMEngine) -> None:
        """Find out what kind of scoring the loaded model does, and keep vLLM's processor for it."""
        config = engine.model_config
        tasks = engine.get_supported_tasks()
        kind = SCORE_TYPE_MAP.get(config.get_pooling_task(tasks))
        labels = getattr(config.hf_config, "num_labels", 1)
        if kind == "cross-encoder" and labels != 1:
            raise EngineStartError(
                f"model {self._name!r} has {labels} labels; a reranker must have exactly one (num_labels: 1)"
            )
        processors = init_pooling_io_processors(
            supported_tasks=tasks,
            vllm_config=engine.vllm_config,
            renderer=engine.renderer,
            chat_template_config=ChatTemplateConfig(),
        )
        if kind is None or kind not in processors:
            raise EngineStartError(f"model {self._name!r} cannot score pairs (vLLM offers: {', '.join(tasks)})")
        self.scale = ScoreScale.LOGIT if kind == "cross-encoder" else ScoreScale.SIMILARITY
        self._max_tokens = config.max_model_len
        self._processor: Any = processors[kind]
        self._tokenizer = self._processor.tokenizer
        self._params = PoolingParams(
            task=self._processor.pooling_task,
            # Logits out, the sigmoid ours: raw and normalized callers share one batch.
            use_activation=False if kind == "cross-encoder" else None,
        )

    def score(self, batch: ScoringBatch, cancellation: Cancellation) -> BatchScores:
        with self._rendering:
            documents, truncated = self._shorten(batch)
            work = Work(self._render(batch.query, documents), batch.priority)
        if self._closed:
            raise EngineDied("the engine is closed")
        self._inbox.put(work)
        cancellation.on_cancel(lambda: self._inbox.put(Abort(work)))
        outputs = work.done.result()
        prompt_tokens = sum(len(output.prompt_token_ids) for output in outputs)
        truncated |= self._cut_by_vllm(batch.query, documents, outputs)
        context = OfflineOutputsContext(outputs=outputs, n_queries=1)
        scored = self._processor.post_process_offline(ctx=context)
        scores, errors = _collect(scored)
        return BatchScores(scores, prompt_tokens, sorted(truncated), errors)

    def close(self) -> None:
        self._closed = True
        self._inbox.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=30)

    def _shorten(self, batch: ScoringBatch) -> tuple[list[str], set[int]]:
        """Cut documents to the caller's limit; also say which were cut."""
        limit = batch.max_tokens_per_doc
        if limit is None or limit >= self._max_tokens:
            return batch.documents, set()
        documents = [truncate_text_to_tokens(text, self._tokenizer, limit) for text in batch.documents]
        cut = {i for i, text in enumerate(documents) if len(text) != len(batch.documents[i])}
        return documents, cut

    def _render(self, query: str, documents: list[str]) -> list[Any]:
        """Turn pairs into vLLM's engine inputs, over-long ones truncated to the model's limit."""
        context = OfflineScoringInputsContext(
            pooling_task=self._processor.pooling_task,
            tokenization_kwargs={"truncate_prompt_tokens": -1},
            lora_request=None,
            priorities=None,
            scoring_data=self._processor.valid_inputs(query, documents),
            chat_template=None,
            pooling_params=self._params,
        )
        factory, _ = self._processor.get_request_factory_offline(context)
        return [self._processor.render(params) for params in factory()]

    def _cut_by_vllm(self, query: str, documents: list[str], outputs: list[Any]) -> set[int]:
        """Positions whose prompt filled the model's limit, and would have been longer."""
        offset = len(outputs) - len(documents)
        lengths = [len(output.prompt_token_ids) for output in outputs[offset:]]
        full = [i for i, length in enumerate(lengths) if length >= self._max_tokens]
        if not full:
            return set()
        pairs = offset == 0
        with self._rendering:
            return {i for i in full if self._length(query if pairs else None, documents[i]) > self._max_tokens}

    def _length(self, query: str | None, document: str) -> int:
        texts = (document,) if query is None else (query, document)
        return len(self._tokenizer(*texts, truncation=False)["input_ids"])

    def _run(self, spec: ModelSpec, started: Future[LLMEngine]) -> None:
        """The engine's thread: build, then add and step until closed or broken."""
        try:
            engine = LLMEngine.from_engine_args(_engine_args(spec))
        except BaseException as error:
            started.set_exception(error)
            return
        started.set_result(engine)
        loop = EngineLoop(engine, self._inbox)
        try:
            loop.run()
            reason = EngineDied("the engine is closed")
        except Exception as error:
            logger.exception("the engine broke")
            reason = EngineDied(f"the engine broke: {_one_line(error)}")
        self._closed = True
        loop.fail_all(reason)
        engine.renderer.shutdown()
        engine.engine_core.shutdown()


def _engine_args(spec: ModelSpec) -> EngineArgs:
    try:
        return EngineArgs(**engine_settings(spec, on_cpu=current_platform.is_cpu()))
    except TypeError as error:
        raise EngineStartError(f"model {spec.name!r}: engine_args: {_one_line(error)}") from error


def _collect(scored: list[Any]) -> tuple[list[float | None], dict[int, str]]:
    scores: list[float | None] = []
    errors: dict[int, str] = {}
    for position, output in enumerate(scored):
        value = math.nan if output.error is not None else _scalar(output)
        if math.isfinite(value):
            scores.append(value)
        else:
            scores.append(None)
            errors[position] = "the model gave no finite score for this document"
    return scores, errors


def _scalar(output: Any) -> float:
    """The one number in a scored output: a pooled tensor for a cross-encoder, a bare one otherwise."""
    data = getattr(output.outputs, "data", output.outputs)
    extract: Callable[[], Any] = data.item
    return float(extract())


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__
