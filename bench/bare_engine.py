"""Measures vLLM's engine without a server, in process and under full load: the upper bound for any server around it.

`python -m bench.bare_engine` reads {"model", "seconds", "words", "first", "seed"} as JSON from standard input and
prints {"pairs", "seconds", "start_seconds", "sample"}. The engine has the settings of our worker, except those that the
optional fields `engine_args` and `openmp` ("gnu") replace. It uses only vLLM's public `LLM.score`. "sample" has the
scores of 128 pairs, the same in every run: from unrelated texts to documents that begin with the query.
"""

import json
import os
import sys
import time
from pathlib import Path

from bench.words import QUERY_WORDS, Words, vocabulary
from shared.models import ModelSpec
from worker.engines.vllm.openmp import use_intel_runtime
from worker.engines.vllm.settings import engine_settings, prepare_environment

_PAIRS_AT_ONCE = 640
_SAMPLE_PAIRS = 128


def main() -> int:
    order = json.load(sys.stdin)
    # vLLM prints to standard output too. Only the result goes to the real one; the rest goes to standard error.
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    started = time.perf_counter()
    prepare_environment(os.environ)
    if order.get("openmp") != "gnu":
        use_intel_runtime(os.environ)
    from vllm import LLM

    model = Path(order["model"])
    spec = ModelSpec(name=model.name, source=str(model), engine_args=order.get("engine_args", {}))
    engine = LLM(**engine_settings(spec, on_cpu=True))
    start_seconds = time.perf_counter() - started
    words = Words(vocabulary(model, order["seed"]), order["seed"])
    pairs, serial, count = 0, order["first"], _PAIRS_AT_ONCE // 10
    began = time.perf_counter()
    while (elapsed := time.perf_counter() - began) < order["seconds"] or not pairs:
        queries, documents = fresh_pairs(words, serial, count, order["words"])
        engine.score(queries, documents, use_tqdm=False)
        serial += count
        if count < _PAIRS_AT_ONCE:  # The first round was the warm-up.
            count, began = _PAIRS_AT_ONCE, time.perf_counter()
        else:
            pairs += count
    sample = [output.outputs.score for output in engine.score(*sample_pairs(words), use_tqdm=False)]
    found = {"pairs": pairs, "seconds": elapsed, "start_seconds": start_seconds, "sample": sample}
    print(json.dumps(found), file=output, flush=True)
    # No other resource needs cleanup, and an orderly exit of torch takes seconds.
    engine.llm_engine.engine_core.shutdown()
    os._exit(0)


def fresh_pairs(words: Words, serial: int, count: int, length: int) -> tuple[list[str], list[str]]:
    """Return `count` queries and `count` documents that no earlier serial number gives."""
    serials = range(serial, serial + count)
    queries = [words.query(number).decode() for number in serials]
    return queries, [words.documents(number, 1, length)[0].decode() for number in serials]


def sample_pairs(words: Words) -> tuple[list[str], list[str]]:
    """Return 128 queries and their documents, which begin with up to all ten words of the query."""
    queries = [words.query(number).decode() for number in range(_SAMPLE_PAIRS)]
    documents = []
    for number, query in enumerate(queries):
        shared = query.split()[: number % (QUERY_WORDS + 1)]
        documents.append(" ".join([*shared, words.text(_SAMPLE_PAIRS + number, 5 + number % 60).decode()]))
    return queries, documents


if __name__ == "__main__":
    sys.exit(main())
