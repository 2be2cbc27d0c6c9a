"""Draws series over time as SVG, without a library: for documents and for looking at dashboards."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT, _MARGIN = 360, 130, 52
_COLORS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2")


@dataclass(frozen=True, slots=True)
class Line:
    """One series: (seconds, value) pairs."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Chart:
    """Series with one unit."""

    title: str
    lines: Sequence[Line]


def draw(charts: Sequence[Chart], path: Path, *, columns: int = 1) -> None:
    """Write the charts as one picture."""
    step_x, step_y = _WIDTH + 2 * _MARGIN, _HEIGHT + _MARGIN + 34
    rows = -(-len(charts) // columns)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {columns * step_x} {rows * step_y}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{columns * step_x}" height="{rows * step_y}" fill="white"/>',
    ]
    for number, chart in enumerate(charts):
        parts += _chart(chart, _MARGIN + number % columns * step_x, 28 + number // columns * step_y)
    path.write_text("\n".join([*parts, "</svg>"]) + "\n")


def _chart(chart: Chart, left: float, top: float) -> list[str]:
    times = [time for line in chart.lines for time, _ in line.points] or [0.0, 1.0]
    begin, length = min(times), max(times) - min(times) or 1.0
    highest = max((value for line in chart.lines for _, value in line.points), default=1.0) * 1.1 or 1.0
    bottom = top + _HEIGHT
    parts = [
        f'<text x="{left}" y="{top - 8}" font-weight="bold">{escape(chart.title)}</text>',
        f'<path d="M{left} {top}V{bottom}H{left + _WIDTH}" fill="none" stroke="#888"/>',
        f'<text x="{left - 5}" y="{top + 8}" text-anchor="end">{highest:.3g}</text>',
        f'<text x="{left - 5}" y="{bottom}" text-anchor="end">0</text>',
        f'<text x="{left + _WIDTH}" y="{bottom + 14}" text-anchor="end">{_duration(length)}</text>',
    ]
    for number, line in enumerate(chart.lines):
        color = _COLORS[number % len(_COLORS)]
        points = " ".join(
            f"{left + (time - begin) / length * _WIDTH:.1f},{bottom - value / highest * _HEIGHT:.1f}"
            for time, value in line.points
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.5"/>')
        place = f'x="{left + number % 3 * 120}" y="{bottom + 14 + 12 * (number // 3)}"'
        parts.append(f'<text {place} fill="{color}">{escape(line.name[:22])}</text>')
    return parts


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
