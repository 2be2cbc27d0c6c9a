"""Loads one model after another into the real engine, and scores batches with each. Run as a program of its own.

A process of its own, so that torch stays out of the test runner. vLLM is imported once, and then a child is forked for
each model: two engines in one process break it. Reads orders from standard input, a line each:
{"cases": [{"spec": a model's entry, "batches": [a ScoringBatch's fields, ...]}, ...], "into": a file}, and writes a
list into that file: {"scale", "results": [a BatchScores' fields, or {"error"}]} for each case, or {"start_error"}.
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

from shared.models import ModelSpec
from worker.engines.base import Cancellation, EngineError, EngineStartError, ScoringBatch, ScoringEngine
from worker.engines.registry import build_engine
from worker.engines.vllm.settings import prepare_environment
from worker.process.startup import deferred_gc


def score(engine: ScoringEngine, batch: dict[str, Any]) -> dict[str, Any]:
    try:
        scores = engine.score(ScoringBatch(**batch), Cancellation())
    except EngineError as error:
        return {"error": str(error)}
    return dataclasses.asdict(scores)


def drive(spec: dict[str, Any], batches: list[dict[str, Any]]) -> dict[str, Any]:
    try:
        with deferred_gc():
            engine = build_engine(ModelSpec.model_validate(spec))
    except EngineStartError as error:
        return {"start_error": str(error)}
    return {"scale": engine.scale, "results": [score(engine, batch) for batch in batches]}


def drive_and_end(case: dict[str, Any], sender: Connection) -> NoReturn:
    """The engine is not closed: that takes longer than all the rest, and this process ends anyway."""
    sender.send(drive(**case))
    os._exit(0)


def drive_all(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One child after another, so that each has the machine to itself."""
    context = multiprocessing.get_context("fork")
    outcomes = []
    for case in cases:
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=drive_and_end, args=(case, sender))
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
        order = json.loads(line)
        # Not to standard output, where vLLM logs; and there at once, for somebody waits for the file.
        unfinished = Path(order["into"] + ".part")
        unfinished.write_text(json.dumps(drive_all(order["cases"])))
        unfinished.rename(order["into"])


if __name__ == "__main__":
    main()
