"""Program that measures this service's engine in process, without Redis, API and HTTP.

Reads {"model", "engine_args", "seconds", "seed", "loads": [[requests in the engine, documents, words], ...]} as JSON
from standard input. Prints [{"pairs", "seconds", "start_seconds"}, ...], one object for each load.
"""

import json
import os
import queue
import sys
import time
from pathlib import Path
from typing import Any

from bench.words import Words, vocabulary
from shared.models import ModelSpec
from worker.engines.base import Cancellation, Pending, ScoringBatch
from worker.engines.registry import build_engine


def main() -> None:
    order = json.load(sys.stdin)
    # vLLM prints to standard output too. Only the result goes to the real one; the rest goes to standard error.
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    started = time.perf_counter()
    model = Path(order["model"])
    engine: Any = build_engine(ModelSpec(name=model.name, source=str(model), engine_args=order["engine_args"]))
    start_seconds = time.perf_counter() - started
    words = Words(vocabulary(model, order["seed"]), order["seed"])
    found, serial = [], 0
    for at_once, documents, length in order["loads"]:
        batches = Batches(words, serial, documents, length)
        run(engine, batches, at_once, min(1.0, order["seconds"] / 4))
        pairs, seconds = run(engine, batches, at_once, order["seconds"])
        found.append({"pairs": pairs, "seconds": seconds, "start_seconds": start_seconds})
        serial = batches.serial
    print(json.dumps(found), file=output, flush=True)
    # No other resource needs cleanup, and an orderly exit of torch takes seconds.
    engine.close()
    os._exit(0)


class Batches:
    """New batches, none of which repeats a text. `serial` is the number of the next one."""

    def __init__(self, words: Words, serial: int, documents: int, length: int) -> None:
        self.serial = serial
        self._words = words
        self._documents = documents
        self._length = length

    def next(self) -> ScoringBatch:
        serial, self.serial = self.serial, self.serial + 1
        texts = self._words.documents(serial, self._documents, self._length)
        return ScoringBatch(query=self._words.query(serial).decode(), documents=[text.decode() for text in texts])


def run(engine: Any, batches: Batches, at_once: int, least_seconds: float) -> tuple[int, float]:
    """Keep `at_once` batches in the engine. Returns the number of pairs and the seconds until the last score."""
    ended: queue.SimpleQueue[Pending] = queue.SimpleQueue()

    def begin() -> None:
        pending: Pending = engine.begin(batches.next(), Cancellation())
        pending.add_done_callback(lambda _: ended.put(pending))

    pairs, began = 0, time.perf_counter()
    for _ in range(at_once):
        begin()
    waiting = at_once
    while waiting:
        found = ended.get().result()
        if found.errors:
            raise RuntimeError(f"a document could not be scored: {next(iter(found.errors.values()))}")
        pairs += len(found.scores)
        if time.perf_counter() - began < least_seconds:
            begin()
        else:
            waiting -= 1
    return pairs, time.perf_counter() - began


if __name__ == "__main__":
    main()
