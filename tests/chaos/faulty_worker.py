"""Starts `python -m worker` with a shifted clock, or with an engine that crashes on poison documents.

CHAOS_CLOCK_SECONDS is added to time.time. A document that contains the word in CHAOS_POISON ends the process while it
is scored, as a crashing engine would.
"""

import os
import time

CLOCK_VARIABLE = "CHAOS_CLOCK_SECONDS"
POISON_VARIABLE = "CHAOS_POISON"
POISON_DELAY_SECONDS = 0.15
"""Long enough for the engine to be scoring other shards when it crashes."""


def shift_clock(offset: float) -> None:
    """Shift time.time for all modules that are imported afterwards."""
    real_time = time.time

    def shifted_time() -> float:
        return real_time() + offset

    time.time = shifted_time


def crash_on_word(word: str) -> None:
    """Make the lexical engine exit when a document contains the word."""
    from typing import Any

    from worker.engines.lexical import LexicalEngine

    score: Any = LexicalEngine.score

    def score_or_exit(engine: LexicalEngine, batch: Any, *rest: Any, **options: Any) -> Any:
        if any(word in document for document in batch.documents):
            time.sleep(POISON_DELAY_SECONDS)
            os._exit(1)
        return score(engine, batch, *rest, **options)

    setattr(LexicalEngine, "score", score_or_exit)  # noqa: B010


def main() -> int:
    if offset := os.environ.get(CLOCK_VARIABLE):
        shift_clock(float(offset))
    if word := os.environ.get(POISON_VARIABLE):
        crash_on_word(word)
    from worker.__main__ import main as worker_main

    return worker_main()


if __name__ == "__main__":
    raise SystemExit(main())
