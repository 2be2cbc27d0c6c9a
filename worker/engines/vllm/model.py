"""Builds a loaded model's prompts and reads its scores, with vLLM's prompt processors.

Several threads call it. It does not run the engine.
"""

import threading
from typing import Any

from vllm import PoolingParams
from vllm.entrypoints.pooling.factories import init_pooling_io_processors
from vllm.entrypoints.pooling.scoring.utils import compress_token_type_ids
from vllm.entrypoints.pooling.typing import OfflineOutputsContext
from vllm.renderers.chat_utils import ChatTemplateConfig
from vllm.renderers.inputs.preprocess import parse_model_prompt
from vllm.tasks import SCORE_TYPE_MAP
from vllm.v1.engine.llm_engine import LLMEngine

from shared.models import ModelSpec
from worker.engines.base import EngineStartError
from worker.engines.scoring.control_tokens import PromptTokenizer
from worker.engines.scoring.layouts import PromptTokens
from worker.engines.scoring.templates import load_template
from worker.engines.scoring.tokens import TextTokens


class VllmModel:
    """The loaded model as a `ModelView`."""

    def __init__(self, spec: ModelSpec, engine: LLMEngine, template: str | None) -> None:
        """Raises EngineStartError when vLLM cannot score with this model."""
        self._config = engine.model_config
        tasks = engine.get_supported_tasks()
        task = self._config.get_pooling_task(tasks)
        kind = SCORE_TYPE_MAP.get(task)
        labels = getattr(self._config.hf_config, "num_labels", 1)
        if kind == "cross-encoder" and labels != 1:
            raise EngineStartError(
                f"model {spec.name!r} has {labels} labels; a reranker must have exactly one (num_labels: 1)"
            )
        if template is None and getattr(self._config.hf_config, "is_original_qwen3_reranker", False):
            # Without its prompt this model ranks at random.
            template = load_template("qwen3-reranker")
        processors = init_pooling_io_processors(
            supported_tasks=tasks,
            vllm_config=engine.vllm_config,
            renderer=engine.renderer,
            chat_template_config=ChatTemplateConfig(chat_template=template),
        )
        if kind is None or kind not in processors:
            raise EngineStartError(f"model {spec.name!r} cannot score pairs (vLLM offers: {', '.join(tasks)})")
        self._processor: Any = processors[kind]
        self._tokenize = engine.renderer.default_cmpl_tok_params.with_kwargs(truncate_prompt_tokens=-1)
        # Serialized: vLLM copies its whole tokenizer for every concurrent caller.
        self._building = threading.Lock()
        self._params: dict[int | None, PoolingParams] = {}
        self.kind = kind
        self.dtype = str(self._config.dtype).removeprefix("torch.")
        self.listwise = self._config.architecture == "JinaForRanking"
        self.template = template
        self.reads_pairs = kind == "cross-encoder" and template is None and self._builds_pairs()
        self.max_tokens: int = self._config.max_model_len
        self.tokens = TextTokens(
            self._processor.tokenizer,
            vocabulary=self._config.get_vocab_size(),
            lower_case=kind != "cross-encoder" and self._tokenize.do_lower_case,
            allow_special_tokens=spec.allow_special_tokens,
        )
        self._control = self.tokens.control
        if self._control is not None and (kind == "cross-encoder" or self.listwise):
            self._processor.tokenizer = PromptTokenizer(self._processor.tokenizer, self.tokens.backend, self._control)

    def engine_input(self, ids: list[int], first_typed: int | None = None) -> Any:
        if (params := self._params.get(first_typed)) is None:
            params = self._params[first_typed] = PoolingParams(
                task=self._processor.pooling_task,
                # Logits, so that raw and normalized callers share one batch; the API applies the sigmoid.
                use_activation=False if self.kind == "cross-encoder" else None,
                extra_kwargs=None if first_typed is None else {"compressed_token_type_ids": first_typed},
            )
            params.verify(self._config)
        return {"prompts": ids, "params": params, "tokens": len(ids)}

    def build_single(self, text: str) -> list[int]:
        with self._building:
            (prompt,) = self._processor.renderer.render_cmpl([parse_model_prompt(self._config, text)], self._tokenize)
        return list(prompt["prompt_token_ids"])

    def build_pair(self, query: str, document: str, instruction: str | None = None) -> PromptTokens:
        mark = str if self._control is None else self._control.mark
        with self._building:
            _, prompt = self._processor.get_score_prompt(
                mark(query),
                mark(document),
                encode_kwargs={"add_special_tokens": True, "truncation": False},
                chat_template=self.template,
                chat_template_kwargs=None if instruction is None else {"instruction": mark(instruction)},
            )
        types = prompt.get("token_type_ids")
        return list(prompt["prompt_token_ids"]), compress_token_type_ids(types) if types else None

    def build_list(self, query: str, documents: list[str], instruction: str | None) -> list[int]:
        text = self._render_list(query, documents, instruction)
        with self._building:
            encoded = self._processor.tokenizer(text, add_special_tokens=True, truncation=False)
        return list(encoded["input_ids"])

    def post_process(self, outputs: list[Any]) -> list[Any]:
        scored: list[Any] = self._processor.post_process_offline(OfflineOutputsContext(outputs=outputs, n_queries=1))
        return scored

    def _render_list(self, query: str, documents: list[str], instruction: str | None) -> str:
        render = self._processor.format_docs_prompts_func
        if self._control is None:
            return str(render(query=query, docs=documents, instruction=instruction))
        # Rendered with numbers for the texts, because vLLM deletes two of the control tokens from texts.
        texts = [query, instruction or "", *documents]
        query, instructed, *documents = [self._control.mark(str(number)) for number in range(len(texts))]
        rendered = render(query=query, docs=documents, instruction=instructed if instruction else None)
        return self._control.place(rendered, texts)

    def _builds_pairs(self) -> bool:
        """Whether the tokenizer joins the two texts, not the model's template or plain concatenation."""
        return self._processor.use_sep_token and not self._processor.supports_score_template
