"""Builds the engine that a model's entry asks for. The vLLM engine is imported only when it is the one."""

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
    """Load the model and warm it up; `mark` is told of each stage that is over. Raises EngineStartError.

    Its message is one clear sentence.
    """
    if spec.engine == "lexical":
        return LexicalEngine(delay_seconds=_seconds(spec.engine_args))
    import_engine(spec.engine)
    if spec.engine == "vllm":
        from worker.engines.vllm.engine import VllmEngine

        return VllmEngine(spec, mark)
    raise EngineStartError(f"model {spec.name!r}: no engine {spec.engine!r}; there are {', '.join(ENGINES)}")


def import_engine(name: str) -> None:
    """Import what takes long to import, and load nothing. Raises EngineStartError."""
    if name == "vllm":
        # Importing vLLM takes seconds and gigabytes: never before it is known to be needed.
        prepare_environment(os.environ)
        use_intel_runtime(os.environ)
        try:
            import worker.engines.vllm.engine  # noqa: F401
        except ImportError as error:
            raise EngineStartError(f"vLLM cannot be imported: {error}") from error


def holds_device() -> bool:
    """Whether an engine that was imported holds a device already, so that a forked process could not use it."""
    module = sys.modules.get("worker.engines.vllm.engine")
    return module is not None and bool(module.holds_device())


def _seconds(engine_args: dict[str, Any]) -> float:
    try:
        return TypeAdapter(NonNegativeFloat).validate_python(engine_args.get("delay_seconds", 0.0))
    except ValidationError as error:
        raise EngineStartError("engine_args.delay_seconds must be a number of seconds, 0 or more") from error
