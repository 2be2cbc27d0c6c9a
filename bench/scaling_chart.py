"""Draws a simulation of scaling: the wait of callers and the cost of workers for each traffic pattern.

Two panels side by side have one line per pattern and one dot per scaler, on logarithmic axes. The SVG has a light and a
dark color scheme, like that of bench/chart.py.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from bench.chart import STYLE

if TYPE_CHECKING:
    from bench.scaling_report import Row

_WIDTH, _TOP, _LINE, _BOTTOM = 820, 104, 34, 40
_PANELS = ((170, 470), (510, 796))
_LEAST_WAIT = 0.1
_CLASSES = {"rerankq": "ours", "kubernetes": "ring", "keda": "theirs"}
_NAMES = {"kubernetes": "rerankq's manifests", "keda": "KEDA's own values", "always-on": "always on"}
_STYLE = f"""{STYLE}  .dot.other {{ fill: #8b949e }}
  .dot.ring {{ fill: none; stroke: #0b6bcb; stroke-width: 2 }}
  @media (prefers-color-scheme: dark) {{ .dot.ring {{ stroke: #58a6ff }} }}
"""


def waits_and_costs(rows: "Sequence[Row]") -> str:
    """Return the SVG. Raises ValueError when there are no rows."""
    if not rows:
        raise ValueError("no data to draw")
    lines = list(dict.fromkeys((row.traffic, row.varied) for row in rows))
    height = _TOP + _LINE * len(lines) + _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        'aria-label="Waiting time and cost of workers by traffic and scaler, simulated">',
        f"<style>{_STYLE}</style>",
        f'<rect class="background" width="{_WIDTH}" height="{height}" rx="8"/>',
        '<text class="title" x="20" y="30">Wait of callers and cost of workers, simulated</text>',
        *_legend(list(dict.fromkeys(row.scaler for row in rows))),
        *_labels(lines),
        *_panel(
            rows,
            lines,
            _PANELS[0],
            f"p99 wait of interactive work, s (at least {_LEAST_WAIT:g})",
            lambda row: row.wait_p99,
        ),
        *_panel(rows, lines, _PANELS[1], "worker-seconds", lambda row: row.worker_seconds),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _legend(scalers: Sequence[str]) -> Iterator[str]:
    for number, scaler in enumerate(scalers):
        x = 26 + 165 * number
        yield f'<circle class="dot {_CLASSES.get(scaler, "other")}" cx="{x}" cy="54" r="5"/>'
        yield f'<text x="{x + 12}" y="59">{_NAMES.get(scaler, scaler)}</text>'


def _labels(lines: Sequence[tuple[str, str]]) -> Iterator[str]:
    for number, (traffic, varied) in enumerate(lines):
        yield f'<text x="20" y="{_y(number) + 4}">{varied or traffic}</text>'


def _panel(
    rows: "Sequence[Row]",
    lines: Sequence[tuple[str, str]],
    sides: tuple[int, int],
    title: str,
    value: "Callable[[Row], float | None]",
) -> Iterator[str]:
    left, right = sides
    found = [(row, max(number, _LEAST_WAIT)) for row in rows if (number := value(row)) is not None]
    numbers = [number for _, number in found] or [1.0]
    first, last = math.floor(math.log10(min(numbers))), math.ceil(math.log10(max(numbers)))
    last = max(last, first + 1)
    base = _y(len(lines) - 1) + _LINE / 2
    yield f'<text x="{left}" y="{_TOP - 16}">{title}</text>'
    for power in range(first, last + 1):
        x = left + (power - first) / (last - first) * (right - left)
        yield f'<path class="grid" d="M{x:.1f} {_TOP - 6}V{base:.1f}"/>'
        yield f'<text x="{x:.1f}" y="{base + 18:.1f}" text-anchor="middle">{_decade(power)}</text>'
    for row, number in found:
        x = left + (math.log10(number) - first) / (last - first) * (right - left)
        y = _y(lines.index((row.traffic, row.varied)))
        yield f'<circle class="dot {_CLASSES.get(row.scaler, "other")}" cx="{x:.1f}" cy="{y}" r="5"/>'


def _decade(power: int) -> str:
    for step, letter in ((6, "M"), (3, "k")):
        if power >= step:
            return f"{10 ** (power - step)}{letter}"
    return f"{10.0**power:g}"


def _y(line: int) -> int:
    return _TOP + _LINE // 2 + _LINE * line
