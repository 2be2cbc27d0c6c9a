"""Draws latency against load as an SVG for light and dark color schemes.

Both axes are logarithmic. The number of connections doubles at each step to the right. The latency of a saturated
server doubles with it, which gives a straight line.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from bench.servers import OURS, THEIRS

Curve = Mapping[int, Sequence[Mapping[str, float]]]
"""Maps a number of connections to the percentiles of each round, in milliseconds."""

_WIDTH, _HEIGHT = 760, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 84, 56
_NAMES = {OURS: "rerankq", THEIRS: "vLLM's server"}
_STEPS = (1, 2, 5)
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #59636e }
  .title { font-size: 16px; font-weight: 600; fill: #1f2328 }
  .background { fill: #ffffff }
  .grid { stroke: #e1e4e8; stroke-width: 1 }
  .line { fill: none; stroke-width: 2.5; stroke-linejoin: round }
  .p99 { stroke-dasharray: 6 4; stroke-width: 1.75 }
  .line.ours { stroke: #0b6bcb } .dot.ours { fill: #0b6bcb }
  .line.theirs { stroke: #c2540a } .dot.theirs { fill: #c2540a }
  @media (prefers-color-scheme: dark) {
    text { fill: #9198a1 }
    .title { fill: #e6edf3 }
    .background { fill: #0d1117 }
    .grid { stroke: #2a313a }
    .line.ours { stroke: #58a6ff } .dot.ours { fill: #58a6ff }
    .line.theirs { stroke: #f0883e } .dot.theirs { fill: #f0883e }
  }
"""


def latency_under_load(curves: Mapping[str, Curve]) -> str:
    """Return the SVG. `curves` has one curve per server; rounds are averaged. Raises ValueError without points."""
    if not any(curves.values()):
        raise ValueError("no data to draw")
    frame = _Frame(curves)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        'aria-label="Latency against load, rerankq and vLLM\'s own server">',
        f"<style>{STYLE}</style>",
        f'<rect class="background" width="{_WIDTH}" height="{_HEIGHT}" rx="8"/>',
        f'<text class="title" x="{_LEFT}" y="30">Latency against load, one document of 100 words per request</text>',
        *_legend(curves),
        *_grid(frame),
        *(line for side, curve in curves.items() for line in _lines(frame, side, curve)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


class _Frame:
    """Maps numbers of connections and latencies to coordinates."""

    def __init__(self, curves: Mapping[str, Curve]) -> None:
        self.connections = sorted({count for curve in curves.values() for count in curve})
        latencies = [_mean(rounds, p) for curve in curves.values() for rounds in curve.values() for p in ("p50", "p99")]
        self.ticks = list(_ticks(min(latencies), max(latencies)))

    def x(self, connections: int) -> float:
        first, last = self.connections[0], self.connections[-1]
        share = math.log(connections / first) / math.log(last / first) if last > first else 0.5
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(self, latency: float) -> float:
        share = math.log(latency / self.ticks[0]) / math.log(self.ticks[-1] / self.ticks[0])
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def _mean(rounds: Sequence[Mapping[str, float]], percentile: str) -> float:
    return fmean(found[percentile] for found in rounds)


def _ticks(low: float, high: float) -> Iterator[float]:
    """Yield two or more of 1, 2, 5, 10 ..., from the last at or below `low` to the first at or above `high`."""
    steps = [step * 10.0**power for power in range(-3, 8) for step in _STEPS]
    first = max(index for index, step in enumerate(steps) if step <= low)
    last = min(index for index, step in enumerate(steps) if step >= high and index > first)
    yield from steps[first : last + 1]


def _legend(curves: Mapping[str, Curve]) -> Iterator[str]:
    x = _LEFT
    for side in curves:
        for percentile in ("p50", "p99"):
            yield f'<path class="line {side} {percentile}" d="M{x} 56h28"/>'
            yield f'<text x="{x + 36}" y="60">{_NAMES[side]}, {percentile}</text>'
            x += 168 if side == THEIRS else 140


def _grid(frame: _Frame) -> Iterator[str]:
    right, base = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    for latency in frame.ticks:
        y = frame.y(latency)
        yield f'<path class="grid" d="M{_LEFT} {y:.1f}H{right}"/>'
        yield f'<text x="{_LEFT - 10}" y="{y + 4:.1f}" text-anchor="end">{latency:g}</text>'
    for count in frame.connections:
        yield f'<text x="{frame.x(count):.1f}" y="{base + 20}" text-anchor="middle">{count}</text>'
    yield f'<text x="{(_LEFT + right) / 2:.0f}" y="{base + 42}" text-anchor="middle">connections</text>'
    yield f'<text x="{_LEFT - 10}" y="{_TOP - 10}" text-anchor="end">ms</text>'


def _lines(frame: _Frame, side: str, curve: Curve) -> Iterator[str]:
    for percentile in ("p99", "p50"):
        points = [(frame.x(count), frame.y(_mean(rounds, percentile))) for count, rounds in sorted(curve.items())]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        yield f'<path class="line {side} {percentile}" d="M{path}"/>'
        if percentile == "p50":
            yield from (f'<circle class="dot {side}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in points)
