"""vLLM's engine alone, in process and kept full: the most that any server around it can reach on this machine.

`python -m bench.bare_engine` reads {"model", "seconds", "words", "first", "seed"} as JSON from standard input and
prints {"pairs", "seconds"}. The engine's settings are those of our worker. Only vLLM's public `LLM.score` is used.
"""

import json
import os
import sys
import time
from pathlib import Path

from bench.words import Words, vocabulary
from shared.models import ModelSpec
from worker.engines.vllm_settings import engine_settings, prepare_environment

_PAIRS_AT_ONCE = 640


def main() -> int:
    order = json.load(sys.stdin)
    # What vLLM prints belongs to the log; the answer alone goes to the real standard output.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    prepare_environment(os.environ)
    from vllm import LLM

    model = Path(order["model"])
    engine = LLM(**engine_settings(ModelSpec(name=model.name, source=str(model)), on_cpu=True))
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
    print(json.dumps({"pairs": pairs, "seconds": elapsed}), file=answer, flush=True)
    # Nothing is left to be tidied up, and an orderly end of torch takes seconds.
    os._exit(0)


def fresh_pairs(words: Words, serial: int, count: int, length: int) -> tuple[list[str], list[str]]:
    """So many queries, and as many documents, none of them used before."""
    serials = range(serial, serial + count)
    queries = [words.query(number).decode() for number in serials]
    return queries, [words.documents(number, 1, length)[0].decode() for number in serials]


if __name__ == "__main__":
    sys.exit(main())
