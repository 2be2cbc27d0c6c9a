"""Selects the kind of scoring for a loaded model."""

from collections.abc import Callable
from typing import Any, Protocol

from shared.models import ModelSpec
from worker.engines.base import EngineStartError
from worker.engines.scoring.base import ModelView, Scoring
from worker.engines.scoring.embedding_scoring import EmbeddingScoring
from worker.engines.scoring.embeddings import EmbeddingCache
from worker.engines.scoring.late_scoring import LateScoring
from worker.engines.scoring.layouts import Layout, learn_pair, learn_single
from worker.engines.scoring.list_scoring import ListScoring
from worker.engines.scoring.pair_scoring import PairScoring
from worker.engines.scoring.prompt_scoring import PromptScoring

EMBEDDING_CACHE_BYTES = "embedding_cache_bytes"
"""An engine argument of rerankq's own; the library does not know it."""
_DEFAULT_CACHE_BYTES = 256 * 1024 * 1024


class LoadedModel(ModelView, Protocol):
    """A loaded model and its properties."""

    kind: str
    """cross-encoder, bi-encoder or late-interaction."""
    listwise: bool
    reads_pairs: bool
    """Whether its prompts are two texts with special tokens around them."""
    template: str | None


def pop_cache_bytes(spec: ModelSpec) -> tuple[ModelSpec, int]:
    """The spec without rerankq's own argument, and the size of the embedding cache in bytes.

    Raises EngineStartError.
    """
    arguments: dict[str, Any] = dict(spec.engine_args)
    size = arguments.pop(EMBEDDING_CACHE_BYTES, _DEFAULT_CACHE_BYTES)
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise EngineStartError(f"model {spec.name!r}: engine_args.{EMBEDDING_CACHE_BYTES} must be a number, 0 or more")
    return spec.model_copy(update={"engine_args": arguments}), size


def choose_scoring(
    spec: ModelSpec,
    model: LoadedModel,
    cache_bytes: int,
    on_lookup: Callable[[int, int], None] = lambda hits, misses: None,
) -> Scoring:
    """The scoring for a model; `on_lookup` gets the hits and misses of its embedding cache.

    Raises EngineStartError when its entry does not fit the model."""
    if model.kind == "cross-encoder":
        layout = learn_pair(model.build_pair, _tokenizer_of(model)) if model.reads_pairs else None
        return PromptScoring(model, model.template) if layout is None else PairScoring(model, layout)
    if model.template is not None:
        raise EngineStartError(f"model {spec.name!r} has a score_template, but a {model.kind} model builds no pairs")
    if model.listwise:
        if not spec.listwise:
            raise EngineStartError(f"model {spec.name!r} compares documents with each other; set `listwise: true`")
        return ListScoring(model)
    if model.kind == "late-interaction":
        return LateScoring(model, _learn_layout(spec, model))
    return EmbeddingScoring(model, _learn_layout(spec, model), EmbeddingCache(cache_bytes, on_lookup))


def _learn_layout(spec: ModelSpec, model: LoadedModel) -> Layout:
    layout = learn_single(model.build_single, _tokenizer_of(model))
    if layout is None:
        raise EngineStartError(f"model {spec.name!r} has a prompt format that rerankq does not support")
    return layout


def _tokenizer_of(model: LoadedModel) -> Any:
    def ids_of(text: str) -> list[int]:
        (ids,) = model.tokens.ids([text])
        return ids or []

    return ids_of
