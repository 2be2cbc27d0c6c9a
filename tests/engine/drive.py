"""Program that loads models into the real engine one after another, and scores batches with each.

A separate process keeps torch out of the test runner. It imports vLLM once and forks a child for each model, because
vLLM does not support two engines in one process. Reads one JSON request per line from standard input:
{"cases": [{"spec": a model's entry, "batches": [a ScoringBatch's fields, ...]}, ...], "result_file": a path}
and writes a list to that file, with {"scale", "dtype", "results": [a BatchScores' fields or {"error"}, ...]} or
{"start_error"} for each case. An entry without a `dtype` is scored in float32, so that tests can compare exactly.
"""

import dataclasses
import importlib
import json
import multiprocessing
import os
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from shared.contracts import Truncation
from shared.models import ModelSpec
from worker.engines.base import Cancellation, EngineError, EngineStartError, ScoringBatch, ScoringEngine
from worker.engines.registry import build_engine
from worker.engines.vllm.settings import prepare_environment
from worker.process.startup import deferred_gc


def score(engine: ScoringEngine, batch: dict[str, Any]) -> dict[str, Any]:
    truncation = Truncation(batch.get("truncation", Truncation.END))
    try:
        scores = engine.score(ScoringBatch(**batch | {"truncation": truncation}), Cancellation())
    except EngineError as error:
        return {"error": str(error)}
    return dataclasses.asdict(scores)


def score_batches(spec: dict[str, Any], batches: list[dict[str, Any]]) -> dict[str, Any]:
    arguments = {"dtype": "float32"} | spec.get("engine_args", {})
    try:
        with deferred_gc():
            engine = build_engine(ModelSpec.model_validate(spec | {"engine_args": arguments}))
    except EngineStartError as error:
        return {"start_error": str(error)}
    return {"scale": engine.scale, "dtype": engine.dtype, "results": [score(engine, batch) for batch in batches]}


def run_case_and_exit(case: dict[str, Any], sender: Connection) -> NoReturn:
    """Exit without closing the engine, which would take longer than everything else."""
    sender.send(score_batches(**case))
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
        importlib.import_module("worker.engines.vllm.engine")
    for line in sys.stdin:
        request = json.loads(line)
        # Not to standard output, because vLLM logs there. Renamed when complete, because the reader polls for the file.
        unfinished = Path(request["result_file"] + ".part")
        unfinished.write_text(json.dumps(run_cases(request["cases"])))
        unfinished.rename(request["result_file"])


if __name__ == "__main__":
    main()
