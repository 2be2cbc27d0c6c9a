"""vLLM's engine alone, in process and kept full: the most that any server around it can reach on this machine.

`python -m bench.bare_engine` reads {"model", "seconds", "words", "first", "seed"} as JSON from standard input and
prints {"pairs", "seconds", "start_seconds"}. The engine's settings are those of our worker, but for `engine_args` and
`openmp` ("gnu") where the order has them. Only vLLM's public `LLM.score` is used.
"""

import json
import os
import sys
import time
from pathlib import Path

from bench.words import Words, vocabulary
from shared.models import ModelSpec
from worker.engines.vllm.openmp import use_intel_runtime
from worker.engines.vllm.settings import engine_settings, prepare_environment

_PAIRS_AT_ONCE = 640


def main() -> int:
    order = json.load(sys.stdin)
    # What vLLM prints belongs to the log; the answer alone goes to the real standard output.
    answer = os.fdopen(os.dup(1), "w")
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
        if count < _PAIRS_AT_ONCE:  # that was the warm-up
            count, began = _PAIRS_AT_ONCE, time.perf_counter()
        else:
            pairs += count
    found = {"pairs": pairs, "seconds": elapsed, "start_seconds": start_seconds}
    print(json.dumps(found), file=answer, flush=True)
    # Nothing else is left to be tidied up, and an orderly end of torch takes seconds.
    engine.llm_engine.engine_core.shutdown()
    os._exit(0)


def fresh_pairs(words: Words, serial: int, count: int, length: int) -> tuple[list[str], list[str]]:
    """So many queries, and as many documents, none of them used before."""
    serials = range(serial, serial + count)
    queries = [words.query(number).decode() for number in serials]
    return queries, [words.documents(number, 1, length)[0].decode() for number in serials]


if __name__ == "__main__":
    sys.exit(main())
