"""Formats the results of a run as a Markdown table, JSON and a chart. Writes only to the given folder."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from bench import chart, machine
from bench.cases import CASES, Case, Measured, Verdict, judge
from bench.measurements import Plan

PICTURE = "latency_under_load.svg"
_NOTHING = "-"


def table(measured: Measured, names: Sequence[str], cases: Mapping[str, Case] = CASES) -> str:
    """Return the verdicts as a Markdown table, followed by misses and failures."""
    lines = [
        "| case | | vLLM's server | rerankq | ratio | target | | spread |",
        "|---|---|---:|---:|---:|---:|---|---:|",
        *(_line(verdict) for verdict in judge(measured, names, cases)),
    ]
    if measured.loads:
        lines += ["", _generator_cost(measured)]
    if measured.misses:
        lines += ["", *(f"Missed {case}: {reason}" for case, reason in measured.misses.items())]
    if measured.failures:
        lines += ["", "Failed:", *(f"- {failure}" for failure in measured.failures)]
    return "\n".join(lines)


def _generator_cost(measured: Measured) -> str:
    """Describe the load generator's processor time in the load where its share was largest."""
    most = max(measured.loads, key=lambda load: load["cpu_us"] * load["requests_per_second"])
    share = most["cpu_us"] * most["requests_per_second"] / 1e6
    return (
        f"The load generator took at most {share:.1%} of one core (case {most['case']}, {most['server']}: "
        f"{most['cpu_us']:.0f} µs a request)."
    )


def _line(verdict: Verdict) -> str:
    cells = [
        verdict.case,
        verdict.title,
        _number(verdict.reference, verdict.unit),
        _number(verdict.ours, verdict.unit),
        _NOTHING if verdict.ratio is None else f"{verdict.ratio:.3f}",
        verdict.target,
        verdict.result,
        f"{verdict.spread:.0%}",
    ]
    return f"| {' | '.join(cells)} |"


def _number(value: float | None, unit: str) -> str:
    """Three significant digits and the unit."""
    if value is None:
        return _NOTHING
    decimals = 0 if value >= 1000 else 1 if value >= 10 else 2
    return f"{value:,.{decimals}f} {unit}"


def write(measured: Measured, plan: Plan, folder: Path, name: str) -> list[Path]:
    """Write the JSON, and the chart when both servers have a curve. Returns the paths of the files."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "date": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "machine": machine.describe(),
        "versions": machine.versions(),
        "plan": asdict(plan),
        "verdicts": [asdict(verdict) for verdict in judge(measured, plan.cases)],
        "rounds": measured.values,
        "latency_under_load": measured.curves,
        "loads": measured.loads,
        "misses": measured.misses,
        "failures": measured.failures,
    }
    paths = [folder / f"{name}.json"]
    paths[0].write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    if len(measured.curves) == 2:
        paths.append(folder / PICTURE)
        paths[1].write_text(chart.latency_under_load(measured.curves))
    return paths
