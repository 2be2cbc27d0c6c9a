"""Prints an outcome as a table, and draws it as a picture."""

from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from tests.soak.regression import Series
from tests.soak.run import Outcome

_WIDTH, _HEIGHT, _MARGIN = 760, 150, 60
_COLORS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf")


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


def draw(outcome: Outcome, path: Path) -> None:
    """Write three charts as SVG: memory, Redis's keys, and the p99 of each minute."""
    charts = [
        ("Memory, MiB", outcome.memory),
        ("Keys in Redis", [outcome.keys]),
        ("p99 of a minute, ms", [outcome.p99]),
    ]
    height = len(charts) * (_HEIGHT + _MARGIN) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH + 2 * _MARGIN} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH + 2 * _MARGIN}" height="{height}" fill="white"/>',
    ]
    for number, (title, series) in enumerate(charts):
        parts += _chart(title, series, 30 + number * (_HEIGHT + _MARGIN))
    path.write_text("\n".join([*parts, "</svg>"]) + "\n")


def _chart(title: str, series: Sequence[Series], top: int) -> list[str]:
    end = max((time for each in series for time in each.times), default=1.0)
    highest = max((value for each in series for value in each.values), default=1.0) * 1.1
    bottom = top + _HEIGHT
    parts = [
        f'<text x="{_MARGIN}" y="{top - 8}" font-weight="bold">{escape(title)}</text>',
        f'<path d="M{_MARGIN} {top}V{bottom}H{_MARGIN + _WIDTH}" fill="none" stroke="#888"/>',
        f'<text x="{_MARGIN - 6}" y="{top + 8}" text-anchor="end">{highest:.0f}</text>',
        f'<text x="{_MARGIN - 6}" y="{bottom}" text-anchor="end">0</text>',
        f'<text x="{_MARGIN + _WIDTH}" y="{bottom + 16}" text-anchor="end">{end / 60:.0f} min</text>',
    ]
    for number, each in enumerate(series):
        color = _COLORS[number % len(_COLORS)]
        points = " ".join(
            f"{_MARGIN + time / end * _WIDTH:.1f},{bottom - value / highest * _HEIGHT:.1f}"
            for time, value in zip(each.times, each.values, strict=True)
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.5"/>')
        parts.append(
            f'<text x="{_MARGIN + 10 + 110 * number}" y="{bottom + 16}" fill="{color}">{escape(each.name)}</text>'
        )
    return parts
