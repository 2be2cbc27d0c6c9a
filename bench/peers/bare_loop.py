"""Scores batches in a loop on one thread, and prints the rates. Shared by the programs that call a library."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench.words import Words, vocabulary

_WARM_UP_BATCHES = 2

Score = Callable[[list[tuple[str, str]]], Sequence[float]]
"""Scores (query, document) pairs."""


def measure(order: dict[str, Any], score: Score) -> None:
    """Measure each load of the order (see bench/peers/loops.py), and print the results as one line of JSON."""
    words = Words(vocabulary(Path(order["model"]), order["seed"]), order["seed"])
    found, serial = [], 0
    for batch, length in order["loads"]:
        for _ in range(_WARM_UP_BATCHES):
            time_batch(score, words, serial, batch, length)
            serial += 1
        times: list[float] = []
        began = time.perf_counter()
        while (elapsed := time.perf_counter() - began) < order["seconds"] or not times:
            times.append(time_batch(score, words, serial, batch, length))
            serial += 1
        found.append({"pairs": len(times) * batch, "seconds": elapsed, "p50_ms": median(times) * 1000})
    print(json.dumps(found))


def time_batch(score: Score, words: Words, serial: int, batch: int, length: int) -> float:
    """Score one batch of new pairs. Returns the seconds. Raises RuntimeError for a wrong number of scores."""
    query = words.query(serial).decode()
    pairs = [(query, document.decode()) for document in words.documents(serial, batch, length)]
    started = time.perf_counter()
    scores = score(pairs)
    elapsed = time.perf_counter() - started
    if len(scores) != batch:
        raise RuntimeError(f"{len(scores)} scores for {batch} pairs")
    return elapsed
