"""The cases of the GPU benchmark and the lines that it prints. Starts nothing."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.cases import ENGINE, Case
from bench.models import MadeModel
from bench.words import QUERY_WORDS

SERVICE_CASES: Mapping[str, Case] = {
    "a": Case("64 connections, 20 documents of 100 words", "pairs/s", True, 1.0, shape=(64, 20, 100), value="pairs"),
    "b": Case("64 connections, 20 documents of 5 words", "pairs/s", True, 1.0, shape=(64, 20, 5), value="pairs"),
    "c": Case("256 connections, 1 document of 100 words", "pairs/s", True, 1.0, shape=(256, 1, 100), value="pairs"),
    "d": Case("256 connections, 1 document of 5 words", "pairs/s", True, 1.0, shape=(256, 1, 5), value="pairs"),
    "e": Case("1 connection, 1 document of 100 words, p50", "ms", False, 1.0, shape=(1, 1, 100), value="p50"),
    "f": Case("1 connection, 100 documents of 100 words, p50", "ms", False, 1.0, shape=(1, 100, 100), value="p50"),
}
"""The whole service against vLLM's server."""
FIRST_START, LATER_START = "first start", "later start"
ENGINE_LOADS: Mapping[str, tuple[int, int, int]] = {
    "engine 20 x 100": (64, 20, 100),
    "engine 20 x 5": (64, 20, 5),
    "engine 1 x 100": (256, 1, 100),
}
"""Requests in the engine at once, documents per request, words per document."""
SHARE = "share"
CASES: Mapping[str, Case] = {
    **SERVICE_CASES,
    "a-engine": Case("case a against vLLM's engine without a server", "pairs/s", True, None, ENGINE, needs="a"),
    **{
        name: Case(f"{name} words, in process, against vLLM's engine", "pairs/s", True, None, ENGINE)
        for name in ENGINE_LOADS
    },
    SHARE: Case("engine 20 x 100: share of the device's matrix rate", "%", True, 40.0, ""),
    "service share": Case("case a: share of the device's matrix rate", "%", True, None, ""),
    FIRST_START: Case("process start to first score, nothing compiled before", "s", False, None),
    LATER_START: Case("the same with cached compiled code", "s", False, None),
}
_SPECIAL_TOKENS = 4
"""XLM-RoBERTa's tokens around and between the two texts."""


def share_of_rate(model: MadeModel, words: int, pairs_per_second: float, matrix_tflops: float) -> float:
    """Return the percentage of the matrix rate that a rate of pairs takes."""
    flops = model.flops(QUERY_WORDS + words + _SPECIAL_TOKENS)
    return 100 * flops * pairs_per_second / (matrix_tflops * 1e12)


class Lines:
    """Prints one JSON object a line for each result, and appends it to a file when one is given."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("")

    def write(self, result: str, **values: Any) -> None:
        line = json.dumps({"result": result, **values})
        print(line, flush=True)
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(line + "\n")
