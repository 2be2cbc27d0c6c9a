"""Prints an outcome as a table, and draws it as a picture."""

from pathlib import Path

from tests.charts import Chart, Line, draw
from tests.soak.regression import Series
from tests.soak.run import Outcome


def table(outcome: Outcome) -> str:
    """A Markdown table of medians and slopes."""
    rows = ["| what | median | change an hour |", "|---|---:|---:|"]
    for series in outcome.memory:
        rows.append(f"| memory of {series.name} | {series.middle:.1f} MiB | {series.slope:+.2f} MiB |")
    for series in outcome.files:
        rows.append(f"| open files of {series.name} | {series.middle:.0f} | {series.slope:+.1f} |")
    rows.append(f"| Redis keys | {outcome.keys.middle:.0f} | {outcome.keys.slope:+.0f} |")
    rows.append(f"| p99 of a minute | {outcome.p99.middle:.0f} ms | {outcome.p99.slope:+.1f} ms |")
    return "\n".join(rows)


def summary(outcome: Outcome) -> str:
    """One sentence about the load."""
    calls, minutes = outcome.calls, outcome.plan.seconds / 60
    return (
        f"{len(calls.latencies):,} calls in {minutes:.0f} minutes ({outcome.per_second:.0f} a second), "
        f"{outcome.kills} kills, {calls.lost} connections lost and repeated, {sum(calls.failed.values())} failed"
    )


def picture(outcome: Outcome, path: Path) -> None:
    """Draw memory, Redis's keys, and the p99 of each minute."""
    charts = [
        Chart("Memory, MiB", [_line(each) for each in outcome.memory]),
        Chart("Keys in Redis", [_line(outcome.keys)]),
        Chart("p99 of a minute, ms", [_line(outcome.p99)]),
    ]
    draw(charts, path)


def _line(series: Series) -> Line:
    return Line(series.name, list(zip(series.times, series.values, strict=True)))
