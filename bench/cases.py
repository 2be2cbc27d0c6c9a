"""The benchmark's cases, their targets, and the verdict on measured rounds. Pure functions.

Each case puts the same load on both servers. A round gives one value for each side; the verdict compares the means.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import fmean
from typing import Any

from bench.servers import OURS, THEIRS

ENGINE = "engine"
"""The third side: vLLM's engine without a server."""
ONNX = "onnx"
"""The fourth side: ONNX Runtime with dynamic int8 quantization, a loop without a server."""
UNCACHED = "without prefix caching"
"""The fifth side: our service, whose engine computes every prompt from its beginning."""
SWEEP_CONNECTIONS = (1, 2, 4, 8, 16, 32, 64)
BACKLOG_DOCUMENTS = 20
LONG_WORDS = 2600
"""The words of a document of 20 kB."""


class Setup(StrEnum):
    """What the servers of a case serve, and with which settings."""

    SAME_DTYPE = "same dtype"
    """The cross-encoder of the MiniLM-L6 shape, in float32 on both sides."""
    TINY = "tiny"
    """A model of one layer and width 32, in float32 on both sides: nearly all the time is spent around the model."""
    SHIPPED = "shipped"
    """The cross-encoder, without a dtype on either side."""
    EIGHT_BITS = "8 bits"
    """The 8-bit copy of the cross-encoder that `python -m worker quantize` writes."""
    LANGUAGE_MODEL = "language model"
    """A reranker of the Qwen3 kind, whose prompt puts instruction and query before the document."""


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table. `bound` limits the ratio ours / `against`, or our own value where `against` is empty.

    A case without a `bound` has no target. `shape` is (connections, documents per request, words per document). `value`
    names the measured quantity of an outcome: a rate, or a percentile of the latency. Cases without a `value` have
    their own method in `bench.measurements`. `needs` is the case from whose measurement this one is derived; with an
    `against`, our side's value is that of the needed case.
    """

    title: str
    unit: str
    at_least: bool
    bound: float | None
    against: str = THEIRS
    shape: tuple[int, int, int] | None = None
    value: str = ""
    needs: str = ""
    setup: Setup = Setup.SAME_DTYPE


def _tiny(title: str, bound: float, shape: tuple[int, int, int]) -> Case:
    return Case(f"tiny model: {title}", "pairs/s", True, bound, shape=shape, value="pairs", setup=Setup.TINY)


def _worker_cpu(case: str, milliseconds: float) -> Case:
    title = f"{case}: the worker's processor time per pair"
    return Case(title, "ms", False, milliseconds, "", needs=case, setup=Setup.TINY)


def _shipped(title: str, bound: float, shape: tuple[int, int, int]) -> Case:
    return Case(f"as shipped: {title}", "pairs/s", True, bound, shape=shape, value="pairs", setup=Setup.SHIPPED)


def _eight_bits(title: str, bound: float, shape: tuple[int, int, int]) -> Case:
    title = f"8 bits, against ONNX Runtime without a server: {title}"
    return Case(title, "pairs/s", True, bound, ONNX, shape, "pairs", setup=Setup.EIGHT_BITS)


CASES: Mapping[str, Case] = {
    "a": Case("32 connections, 20 documents of 100 words", "pairs/s", True, 1.00, shape=(32, 20, 100), value="pairs"),
    "a-engine": Case("the same, against vLLM's engine without a server", "pairs/s", True, 0.95, ENGINE, needs="a"),
    "b": Case("32 connections, 20 documents of 5 words", "pairs/s", True, 1.10, shape=(32, 20, 5), value="pairs"),
    "c": Case(
        "64 connections, 1 document of 100 words", "requests/s", True, 1.00, shape=(64, 1, 100), value="requests"
    ),
    "d": Case("64 connections, 1 document of 5 words", "requests/s", True, 1.00, shape=(64, 1, 5), value="requests"),
    "e": Case("1 connection, 1 document of 100 words, p50", "ms", False, 0.85, shape=(1, 1, 100), value="p50"),
    "f": Case("1 connection, 20 documents of 100 words, p50", "ms", False, 0.90, shape=(1, 20, 100), value="p50"),
    "g": Case("the same as e, worst, behind a backlog of batch work", "ms", False, 0.01),
    "h": Case("process start to first score", "s", False, 0.40),
    "i": Case("bi-encoder, 100 documents of 100 words seen before, new query, p50", "ms", False, 0.10),
    "j": Case("the same request again, no worker running, p50", "ms", False, 5.0, ""),
    "k": Case("e without the engine's own time, p50", "ms", False, 3.0, "", needs="e"),
    "l": Case("latency against load (the picture)", "ms", False, 0.0, ""),
    "o1": _tiny("64 connections, 1 document of 5 words", 1.5, (64, 1, 5)),
    "o1-cpu": _worker_cpu("o1", 0.40),
    "o2": _tiny("32 connections, 20 documents of 5 words", 2.5, (32, 20, 5)),
    "o2-cpu": _worker_cpu("o2", 0.12),
    "o3": _tiny("32 connections, 20 documents of 100 words", 2.0, (32, 20, 100)),
    "o3-cpu": _worker_cpu("o3", 0.35),
    "o4": _tiny("256 connections, 1 document of 100 words", 1.2, (256, 1, 100)),
    "w": _tiny("32 connections, 20 documents of 20 kB", 3.0, (32, 20, LONG_WORDS)),
    "s1": _shipped("32 connections, 20 documents of 100 words", 10.0, (32, 20, 100)),
    "s2": _shipped("64 connections, 1 document of 5 words", 5.0, (64, 1, 5)),
    "q": Case(
        "language model: 8 connections, 20 documents of 100 words, against the same without prefix caching",
        "pairs/s",
        True,
        1.0,
        UNCACHED,
        (8, 20, 100),
        "pairs",
        setup=Setup.LANGUAGE_MODEL,
    ),
    "p1": _eight_bits("32 connections, 20 documents of 100 words", 1.1, (32, 20, 100)),
    "p2": _eight_bits("32 connections, 20 documents of 5 words", 1.0, (32, 20, 5)),
}


@dataclass(slots=True)
class Measured:
    """The results of a run: `values[case][side]` has one value per round, in the case's unit.

    `curves[side]` maps numbers of connections to latency percentiles, one dictionary per round. `misses` maps cases
    that were missed without a value to the reason. `failures` describes cases that could not be measured.
    """

    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    curves: dict[str, dict[int, list[dict[str, float]]]] = field(default_factory=dict)
    misses: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    loads: list[dict[str, Any]] = field(default_factory=list)

    def add(self, case: str, side: str, value: float) -> None:
        self.values.setdefault(case, {}).setdefault(side, []).append(value)

    def values_of(self, case: str, side: str) -> Sequence[float]:
        return self.values.get(case, {}).get(side, ())


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of one case. None: not measured. `spread` is range / mean of the side where that is larger."""

    case: str
    title: str
    unit: str
    reference: float | None
    ours: float | None
    ratio: float | None
    target: str
    result: str
    spread: float


def cases_to_measure(only: Sequence[str]) -> list[str]:
    """Return the cases in the table's order: all, or the named ones and the cases that they need."""
    names = set(only or CASES)
    names |= {CASES[name].needs for name in names} - {""}
    return [name for name in CASES if name in names]


def judge(measured: Measured, names: Sequence[str], cases: Mapping[str, Case] = CASES) -> list[Verdict]:
    """Return the verdict on each case except l, which is only drawn."""
    return [_judge(name, cases[name], measured) for name in names if name != "l"]


def _judge(name: str, case: Case, measured: Measured) -> Verdict:
    ours = measured.values_of(case.needs if case.against and case.needs else name, OURS)
    reference = measured.values_of(name, case.against) if case.against else ()
    ratio = fmean(ours) / fmean(reference) if ours and reference else None
    value = ratio if case.against else (fmean(ours) if ours else None)
    return Verdict(
        case=name,
        title=case.title,
        unit=case.unit,
        reference=fmean(reference) if reference else None,
        ours=fmean(ours) if ours else None,
        ratio=ratio,
        target=_target(case),
        result="missed" if value is None and name in measured.misses else _result(case, value),
        spread=max(spread(ours), spread(reference)),
    )


def _target(case: Case) -> str:
    if case.bound is None:
        return "-"
    sign = "≥" if case.at_least else "≤"
    return f"{sign} {case.bound:.2f}" if case.against else f"{sign} {case.bound:g} {case.unit}"


def _result(case: Case, value: float | None) -> str:
    if value is None:
        return "not measured"
    if case.bound is None:
        return "-"
    return "met" if (value >= case.bound if case.at_least else value <= case.bound) else "missed"


def spread(values: Sequence[float]) -> float:
    """Return range / mean of the rounds; 0 for fewer than two."""
    return (max(values) - min(values)) / fmean(values) if len(values) > 1 else 0.0
