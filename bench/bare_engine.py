"""Measures vLLM's engine without a server, in process and under full load: the upper bound for any server around it.

`python -m bench.bare_engine` reads {"model", "seconds", "words", "first", "seed"} as JSON from standard input and
prints [{"pairs", "seconds", "start_seconds", "sample"}, ...], one object for each length in `words`. The engine has the
settings of our worker, except those that the optional fields `engine_args` and `openmp` ("gnu") replace. Another
optional field is `pairs_at_once`. It uses only vLLM's public `LLM.score`. "sample" has the scores of 128 pairs, the
same in every run: from unrelated texts to documents that begin with the query.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from bench.words import QUERY_WORDS, Words, vocabulary
from shared.models import ModelSpec
from worker.engines.vllm.openmp import use_intel_runtime
from worker.engines.vllm.settings import engine_settings, prepare_environment

_PAIRS_AT_ONCE = 640
_SAMPLE_PAIRS = 128
_WARM_UP_SHARE = 10


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
    from vllm.platforms import current_platform

    model = Path(order["model"])
    spec = ModelSpec(name=model.name, source=str(model), engine_args=order.get("engine_args", {}))
    engine = LLM(**engine_settings(spec, on_cpu=current_platform.is_cpu()))
    start_seconds = time.perf_counter() - started
    words = Words(vocabulary(model, order["seed"]), order["seed"])
    at_once = order.get("pairs_at_once", _PAIRS_AT_ONCE)
    found: list[dict[str, Any]] = []
    serial = order["first"]
    for length in order["words"]:
        pairs, seconds, serial = measure(engine, words, serial, length, at_once, order["seconds"])
        found.append({"pairs": pairs, "seconds": seconds, "start_seconds": start_seconds})
    sample = [output.outputs.score for output in engine.score(*sample_pairs(words), use_tqdm=False)]
    found = [each | {"sample": sample} for each in found]
    print(json.dumps(found), file=output, flush=True)
    # No other resource needs cleanup, and an orderly exit of torch takes seconds.
    engine.llm_engine.engine_core.shutdown()
    os._exit(0)


def measure(
    engine: Any, words: Words, serial: int, length: int, at_once: int, least_seconds: float
) -> tuple[int, float, int]:
    """Score new pairs after a warm-up. Returns the number of pairs, the seconds, and the next serial number."""
    pairs, count = 0, at_once // _WARM_UP_SHARE
    began = time.perf_counter()
    while (elapsed := time.perf_counter() - began) < least_seconds or not pairs:
        queries, documents = fresh_pairs(words, serial, count, length)
        engine.score(queries, documents, use_tqdm=False)
        serial += count
        if count < at_once:  # The first round was the warm-up.
            count, began = at_once, time.perf_counter()
        else:
            pairs += count
    return pairs, elapsed, serial


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
