"""Builds the engine of a model's entry. The vLLM engine is imported only when it is needed."""

import os
import sys
from collections.abc import Callable
from typing import Any

from pydantic import NonNegativeFloat, TypeAdapter, ValidationError

from shared.models import ModelSpec
from worker.engines.base import EngineStartError, ScoringEngine
from worker.engines.lexical import LexicalEngine
from worker.engines.vllm.openmp import use_intel_runtime
from worker.engines.vllm.settings import prepare_environment

ENGINES = ("vllm", "lexical")


def build_engine(spec: ModelSpec, mark: Callable[[str], None] = lambda _: None) -> ScoringEngine:
    """Load the model and warm it up; `mark` is called with the name of each finished stage. Raises EngineStartError."""
    if spec.engine == "lexical":
        return LexicalEngine(delay_seconds=_seconds(spec.engine_args))
    import_engine(spec.engine)
    if spec.engine == "vllm":
        from worker.engines.vllm.engine import VllmEngine

        return VllmEngine(spec, mark)
    raise EngineStartError(f"model {spec.name!r}: no engine {spec.engine!r}; available: {', '.join(ENGINES)}")


def import_engine(name: str) -> None:
    """Import an engine's library without loading a model. Raises EngineStartError."""
    if name == "vllm":
        # Imported on demand: vLLM takes seconds and much memory.
        prepare_environment(os.environ)
        use_intel_runtime(os.environ)
        try:
            import worker.engines.vllm.engine  # noqa: F401
        except ImportError as error:
            raise EngineStartError(f"vLLM cannot be imported: {error}") from error


def holds_device() -> bool:
    """Whether an imported engine already holds a device, which a forked process could not use."""
    module = sys.modules.get("worker.engines.vllm.engine")
    return module is not None and bool(module.holds_device())


def _seconds(engine_args: dict[str, Any]) -> float:
    try:
        return TypeAdapter(NonNegativeFloat).validate_python(engine_args.get("delay_seconds", 0.0))
    except ValidationError as error:
        raise EngineStartError("engine_args.delay_seconds must be a number of seconds, 0 or more") from error
