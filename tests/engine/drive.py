"""Program that loads models into the real engine one after another, and scores batches with each.

A separate process keeps torch out of the test runner. It imports vLLM once and forks a child for each model, because
vLLM does not support two engines in one process. Reads one JSON request per line from standard input:
{"cases": [{"spec": a model's entry, "batches": [a ScoringBatch's fields, ...]}, ...], "result_file": a path}
and writes a list to that file, with {"scale", "dtype", "results": [a BatchScores' fields or {"error"}, ...],
"cached_tokens"} or {"start_error"} for each case; an error that a retry may cure also has "transient",
one that names a field has "param". An entry without a `dtype` is scored in float32, so that tests can compare exactly.

A case with "memory": {"tokens", "failures"} has an engine whose steps run out of memory when they have more tokens, at
most so many times (null: always), after the warm-up. Its batches are scored together, then again one after the other
("results" and "later"); "failed_steps" are the tokens of the steps that failed.

A case with "default_step" loads nothing: its outcome is {"step"}, the tokens of a step with this default.
"""

import dataclasses
import importlib
import json
import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from shared.contracts import Truncation
from shared.models import ModelSpec
from tests.engine.small_memory import small_memory
from worker.engines.base import (
    BatchScores,
    Cancellation,
    EngineError,
    EngineStartError,
    LimitRefused,
    ScoringBatch,
    ScoringEngine,
    TransientEngineError,
)
from worker.engines.registry import build_engine
from worker.engines.vllm.settings import prepare_environment
from worker.engines.vllm.step_sizes import step_size
from worker.process.startup import deferred_gc

ENGINE = "worker.engines.vllm.engine"


def outcome_of(score: Callable[[], BatchScores]) -> dict[str, Any]:
    try:
        return dataclasses.asdict(score())
    except EngineError as error:
        found: dict[str, Any] = {"error": str(error)}
        if isinstance(error, TransientEngineError):
            found["transient"] = True
        if isinstance(error, LimitRefused):
            found["param"] = error.param
        return found


def score(engine: ScoringEngine, batch: dict[str, Any]) -> dict[str, Any]:
    truncation = Truncation(batch.get("truncation", Truncation.END))
    return outcome_of(lambda: engine.score(ScoringBatch(**batch | {"truncation": truncation}), Cancellation()))


def score_together(engine: Any, batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
    pending = [engine.begin(ScoringBatch(**batch), Cancellation()) for batch in batches]
    return [outcome_of(one.result) for one in pending]


def score_batches(
    spec: dict[str, Any], batches: list[dict[str, Any]], memory: dict[str, Any] | None = None
) -> dict[str, Any]:
    arguments = {"dtype": "float32"} | spec.get("engine_args", {})
    try:
        with deferred_gc():
            engine: Any = build_engine(ModelSpec.model_validate(spec | {"engine_args": arguments}))
    except EngineStartError as error:
        return {"start_error": str(error)}
    found: dict[str, Any] = {"scale": engine.scale, "dtype": engine.dtype}
    if memory is None:
        results = [score(engine, batch) for batch in batches]
        return found | {"results": results, "cached_tokens": engine.cached_tokens}
    with small_memory(**memory) as failed_steps:
        results = score_together(engine, batches)
        return found | {
            "results": results,
            "failed_steps": list(failed_steps),
            "later": [score(engine, batch) for batch in batches],
        }


def step_tokens(spec: dict[str, Any], default_step: int) -> dict[str, Any]:
    module: Any = importlib.import_module(ENGINE)
    module.CPU_STEP = step_size(default_step, 1, on_cpu=True)
    config = module._engine_args(ModelSpec.model_validate(spec)).create_engine_config(
        module.UsageContext.ENGINE_CONTEXT
    )
    return {"step": config.scheduler_config.max_num_batched_tokens}


def run_case_and_exit(case: dict[str, Any], sender: Connection) -> NoReturn:
    """Exit without closing the engine, which would take longer than everything else."""
    sender.send(step_tokens(**case) if "default_step" in case else score_batches(**case))
    os._exit(0)


def run_cases(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Run one child process after another, so that each can use the whole machine."""
    context = multiprocessing.get_context("fork")
    outcomes = []
    for case in cases:
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=run_case_and_exit, args=(case, sender))
        child.start()
        sender.close()
        try:
            outcomes.append(receiver.recv())
        except EOFError:
            outcomes.append({"start_error": "the process died"})
        child.join()
    return outcomes


def main() -> None:
    prepare_environment(os.environ)
    with deferred_gc():
        importlib.import_module(ENGINE)
    for line in sys.stdin:
        request = json.loads(line)
        # Not to standard output, because vLLM logs there. Renamed when complete, because the reader polls for the file.
        unfinished = Path(request["result_file"] + ".part")
        unfinished.write_text(json.dumps(run_cases(request["cases"])))
        unfinished.rename(request["result_file"])


if __name__ == "__main__":
    main()
