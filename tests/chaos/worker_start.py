"""The chaos tests' own start of a worker: `python -m worker` with a wrong clock, or an engine that poison kills.

Nothing of this is in the product. CHAOS_CLOCK_SECONDS is added to time.time; a document that holds the word in
CHAOS_POISON ends the process in the middle of scoring, as a crashing engine would.
"""

import os
import time

CLOCK_VARIABLE = "CHAOS_CLOCK_SECONDS"
POISON_VARIABLE = "CHAOS_POISON"
POISON_DELAY_SECONDS = 0.15
"""Long enough for neighbours to be in the engine too when it dies."""


def set_clock(offset: float) -> None:
    """Shift time.time for everything that is imported after this."""
    true_time = time.time

    def wrong_time() -> float:
        return true_time() + offset

    time.time = wrong_time


def arm_poison(word: str) -> None:
    """Make the lexical engine die of the word."""
    from typing import Any

    from worker.engines.lexical import LexicalEngine

    score: Any = LexicalEngine.score

    def score_or_die(engine: LexicalEngine, batch: Any, *rest: Any, **named: Any) -> Any:
        if any(word in document for document in batch.documents):
            time.sleep(POISON_DELAY_SECONDS)
            os._exit(1)
        return score(engine, batch, *rest, **named)

    setattr(LexicalEngine, "score", score_or_die)  # noqa: B010


def main() -> int:
    if offset := os.environ.get(CLOCK_VARIABLE):
        set_clock(float(offset))
    if word := os.environ.get(POISON_VARIABLE):
        arm_poison(word)
    from worker.__main__ import main as worker_main

    return worker_main()


if __name__ == "__main__":
    raise SystemExit(main())
