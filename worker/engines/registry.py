"""Builds the engine that a model's entry asks for. The vLLM engine is imported only when it is the one."""

import os
from typing import Any

from pydantic import NonNegativeFloat, TypeAdapter, ValidationError

from shared.models import ModelSpec
from worker.engines.base import EngineStartError, ScoringEngine
from worker.engines.lexical import LexicalEngine
from worker.engines.openmp import use_intel_runtime
from worker.engines.vllm_settings import prepare_environment

ENGINES = ("vllm", "lexical")


def build_engine(spec: ModelSpec) -> ScoringEngine:
    """Load the model and warm it up. Raises EngineStartError with one clear sentence."""
    if spec.engine == "lexical":
        return LexicalEngine(delay_seconds=_seconds(spec.engine_args))
    if spec.engine == "vllm":
        # Importing vLLM takes seconds and gigabytes: never before it is known to be needed.
        prepare_environment(os.environ)
        use_intel_runtime(os.environ)
        try:
            from worker.engines.vllm_engine import VllmEngine
        except ImportError as error:
            raise EngineStartError(f"vLLM cannot be imported: {error}") from error
        return VllmEngine(spec)
    raise EngineStartError(f"model {spec.name!r}: no engine {spec.engine!r}; there are {', '.join(ENGINES)}")


def _seconds(engine_args: dict[str, Any]) -> float:
    try:
        return TypeAdapter(NonNegativeFloat).validate_python(engine_args.get("delay_seconds", 0.0))
    except ValidationError as error:
        raise EngineStartError("engine_args.delay_seconds must be a number of seconds, 0 or more") from error
